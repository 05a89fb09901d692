"""Audio to unit vectors: the audio transformer, CLAP, MuQ and VGGish."""
