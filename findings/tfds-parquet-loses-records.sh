#!/usr/bin/env bash
# TFDS writes 1,500 examples to Parquet, and 500 are there.
#
# Versions:  tensorflow-datasets 4.9.10, pyarrow 26.0.1, without TensorFlow
# Expected:  file_format="parquet" is one of the formats of download_and_prepare, and holds what was
#            generated. The metadata say that it does.
# Seen:      Examples are written in batches of 100. Before the second, 100 are skipped, before the
#            third 200, and so on, since a slice of an iterator is counted from where the iterator
#            stands, not from its beginning. The file has 100 rows of 101 and 500 of 1,500, no error
#            is raised, and num_examples says 1,500. "array_record" keeps all.
# Output (without TFDS's own lines):
#   tensorflow-datasets 4.9.10
#   parquet: num_examples 100, can be read 100
#   parquet: num_examples 101, can be read 100
#   parquet: num_examples 1500, can be read 500
#   array_record: num_examples 1500, can be read 1500
#   as described
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet tensorflow-datasets==4.9.10 importlib_resources==7.1.0 \
    array_record==0.8.6 numpy==2.4.6 pyarrow==26.0.1
cd "$tmp"
cat > lost.py <<'EOF'
import sys
import numpy as np
import tensorflow_datasets as tfds

class Numbers(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    count = 0

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"number": np.int64})
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(self.count):
            yield number, {"number": number}

tfds.disable_progress_bar()
print(f"tensorflow-datasets {tfds.__version__}")
seen = []
for file_format, Numbers.count in (
    ("parquet", 100), ("parquet", 101), ("parquet", 1500), ("array_record", 1500)
):
    builder = Numbers(data_dir=f"{file_format}{Numbers.count}", file_format=file_format)
    builder.download_and_prepare()
    promised = builder.info.splits["train"].num_examples
    source = builder.as_data_source(split="train")
    seen.append((promised, len({int(example["number"]) for example in source})))
    print(f"{file_format}: num_examples {promised}, can be read {seen[-1][1]}")
if seen != [(100, 100), (101, 100), (1500, 500), (1500, 1500)]:
    sys.exit("changed: another number of records is lost, or none")
print("as described")
EOF
"$tmp/venv/bin/python" lost.py
