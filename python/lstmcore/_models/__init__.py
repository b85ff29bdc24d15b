"""Models at work: generating, encoder and decoder, state-space form."""
