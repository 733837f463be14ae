"""MLPerf inference: LoadGen, a system under test on ONNX Runtime, models, datasets and accuracy."""
