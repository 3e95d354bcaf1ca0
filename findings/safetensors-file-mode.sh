#!/usr/bin/env bash
# safetensors 0.8 makes its files readable for their owner alone, whatever the umask.
#
# Versions:  safetensors 0.8.0 against 0.7.0, numpy 2.4.6
# Expected:  A new file has the mode that the umask leaves, 0644 under 022, and a file that is
#            written again keeps the mode it had, as with open(path, "wb") and in 0.7.0.
# Seen:      0600 in both cases. Weights exported into a shared folder, or for a server that runs
#            as another user, cannot be read there; overwriting takes rights away that were given.
# Output:
#   safetensors 0.7.0, umask 022: new file 0644, file of 0664 written again 0664
#   safetensors 0.8.0, umask 022: new file 0600, file of 0664 written again 0600
#   as described
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" -m venv "$tmp/venv"
cd "$tmp"
cat > modes.py <<'EOF'
import os, pathlib, sys
from importlib.metadata import version
import numpy as np
from safetensors.numpy import save_file

os.umask(0o022)
new, old = pathlib.Path("new.safetensors"), pathlib.Path("old.safetensors")
new.unlink(missing_ok=True)
old.touch()
old.chmod(0o664)
modes = []
for path in new, old:
    save_file({"w": np.ones(2, np.float32)}, path)
    modes.append(f"{path.stat().st_mode & 0o777:04o}")
print(f"safetensors {version('safetensors')}, umask 022: new file {modes[0]}, "
      f"file of 0664 written again {modes[1]}")
if modes != sys.argv[1:]:
    sys.exit(f"changed: the modes were expected to be {' '.join(sys.argv[1:])}")
EOF
"$tmp/venv/bin/pip" install --quiet safetensors==0.7.0 numpy==2.4.6
"$tmp/venv/bin/python" modes.py 0644 0664
"$tmp/venv/bin/pip" install --quiet safetensors==0.8.0
"$tmp/venv/bin/python" modes.py 0600 0600
echo "as described"
