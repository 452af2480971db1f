"""Says where the data set leans and what to write next."""
