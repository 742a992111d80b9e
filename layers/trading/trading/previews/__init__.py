"""What a request would come to, by the formulas and refusals of what it asks for; nothing is written."""
