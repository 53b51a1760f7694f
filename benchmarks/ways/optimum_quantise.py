"""Command, of Optimum's own environment: an ONNX graph to dynamic int8, as its documentation has it.

python optimum_quantise.py MODEL.onnx FOLDER
"""

import sys
from pathlib import Path

from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig

model, folder = map(Path, sys.argv[1:])
quantizer = ORTQuantizer.from_pretrained(model.parent, file_name=model.name)
quantizer.quantize(save_dir=folder, quantization_config=AutoQuantizationConfig.avx512_vnni(is_static=False))
