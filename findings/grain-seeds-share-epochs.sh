#!/usr/bin/env bash
# In Grain, epoch 1 of seed 0 has the order of epoch 0 of seed 1.
#
# Versions:  grain 0.2.18
# Expected:  Runs with seeds 0, 1, 2 see their data in independent orders: so are repetitions of an
#            experiment taken.
# Seen:      Epoch e of seed s is shuffled with s + e. Runs with seeds 0 and 1 share all their
#            orders but one, an epoch apart: 89 in 90 epochs. IndexSampler does so, and
#            MapDataset.shuffle(seed). MapDataset.seed(s).shuffle() hashes the seed first and is
#            free of it.
# Output:
#   grain 0.2.18
#   IndexSampler: seed 0: 0467 5312 | 5760 4132 | 0417 6532
#   IndexSampler: seed 1: 5760 4132 | 0417 6532 | 4701 2536
#   orders that seeds 0 and 1 share, of 90 epochs of 1,000 records:
#   IndexSampler 89, shuffle(seed) 89, seed(seed).shuffle() 0
#   as described
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet grain==0.2.18 numpy==2.4.6
"$tmp/venv/bin/python" - <<'EOF'
import sys
from importlib.metadata import version
import grain

def sampler(seed, size):
    order = grain.samplers.IndexSampler(size, shuffle=True, num_epochs=90, seed=seed)
    return lambda i: order[i].record_key

ways = {
    "IndexSampler": sampler,
    "shuffle(seed)": lambda seed, n: grain.MapDataset.range(n).shuffle(seed).repeat().__getitem__,
    "seed(seed).shuffle()":
        lambda seed, n: grain.MapDataset.range(n).seed(seed).shuffle().repeat().__getitem__,
}

def epochs(way, seed, size, count):
    record = ways[way](seed, size)
    return [tuple(int(record(e * size + i)) for i in range(size)) for e in range(count)]

print(f"grain {version('grain')}")
for seed in 0, 1:
    shown = ["".join(map(str, e)) for e in epochs("IndexSampler", seed, 8, 3)]
    print(f"IndexSampler: seed {seed}: {' | '.join(f'{e[:4]} {e[4:]}' for e in shown)}")
print("orders that seeds 0 and 1 share, of 90 epochs of 1,000 records:")
shared = [len(set(epochs(w, 0, 1000, 90)) & set(epochs(w, 1, 1000, 90))) for w in ways]
print(", ".join(f"{way} {count}" for way, count in zip(ways, shared)))
if shared != [89, 89, 0]:
    sys.exit("changed: seeds share another number of orders")
print("as described")
EOF
