"""Networks of any shape: modules called with symbols, and the model that such calls describe."""
