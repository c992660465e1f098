"""The activation and the rounding of `cryptodl.torch`, from its file in this repository.

They are plain PyTorch. The package itself would have to be built before anything could be trained,
because its other half is compiled.
"""

import importlib.util
import sys
from pathlib import Path

FILE = Path(__file__).resolve().parents[3] / "engine" / "python" / "python" / "cryptodl" / "torch.py"

_spec = importlib.util.spec_from_file_location("cryptodl_torch", FILE)
_module = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

PolyActivation = _module.PolyActivation
rounding_error = _module.rounding_error
rounding_noise = _module.rounding_noise
rounding_step = _module.rounding_step
