"""The only package that calls the database's procedures and views."""
