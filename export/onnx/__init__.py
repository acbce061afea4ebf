"""The spiking encoder and the whole model as ONNX graphs, and running them in onnxruntime."""
