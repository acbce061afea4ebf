"""The spiking encoder and the whole model as ONNX graphs, and how to run them in onnxruntime."""
