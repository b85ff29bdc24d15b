"""The modules: recurrent layers and cells, what stands around them, and streams of them."""
