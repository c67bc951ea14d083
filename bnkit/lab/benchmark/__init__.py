"""`bnkit bench` without its printing: what is called, the rows that come of it, their summary and their figure."""
