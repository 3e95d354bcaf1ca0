#!/usr/bin/env bash
# safetensors.numpy 0.8 writes a transposed array in the wrong order; 0.7 wrote it right.
#
# Versions:  safetensors 0.8.0 against 0.7.0, numpy 2.4.6
# Expected:  0.7.0 copied what does not lie in C order before writing it. The documentation asks for
#            contiguous arrays, and the PyTorch side of the library refuses others by name: so an
#            array in Fortran order, as a transposed kernel is, is written right or refused.
# Seen:      0.8.0 writes the memory as it lies under the shape that the array shows. Nothing is
#            said; values change places in the file. (Upstream knows: issue 825.)
# Output:
#   safetensors 0.7.0: saved [[0. 3.] [1. 4.] [2. 5.]], loaded [[0. 3.] [1. 4.] [2. 5.]]
#   safetensors 0.8.0: saved [[0. 3.] [1. 4.] [2. 5.]], loaded [[0. 1.] [2. 3.] [4. 5.]]
#   as described
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" -m venv "$tmp/venv"
cd "$tmp"
cat > roundtrip.py <<'EOF'
import sys
from importlib.metadata import version
import numpy as np
from safetensors.numpy import load_file, save_file

array = np.arange(6, dtype=np.float32).reshape(2, 3).T
save_file({"kernel": array}, "weights.safetensors")
back = load_file("weights.safetensors")["kernel"]
line = [str(x).replace("\n", "") for x in (array, back)]
print(f"safetensors {version('safetensors')}: saved {line[0]}, loaded {line[1]}")
if np.array_equal(array, back) != (sys.argv[1] == "right"):
    sys.exit(f"changed: the array was expected to come back {sys.argv[1]}")
EOF
"$tmp/venv/bin/pip" install --quiet safetensors==0.7.0 numpy==2.4.6
"$tmp/venv/bin/python" roundtrip.py right
"$tmp/venv/bin/pip" install --quiet safetensors==0.8.0
"$tmp/venv/bin/python" roundtrip.py wrong
echo "as described"
