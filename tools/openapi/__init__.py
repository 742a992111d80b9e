"""docs/api/openapi.json: made from the code and from what is said here of each route. Nothing of it is deployed."""
