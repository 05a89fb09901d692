"""Signal processing and audio files, without any model."""
