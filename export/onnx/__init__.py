"""The spiking encoder and the whole model as ONNX graphs, and their runs in onnxruntime."""
