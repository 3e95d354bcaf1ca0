#!/usr/bin/env bash
# TFDS without TensorFlow gives palette numbers for colours, and four channels where three are told.
#
# Versions:  tensorflow-datasets 4.9.10, pillow 13.0.0, without TensorFlow and OpenCV
# Expected:  Image(shape=(None, None, 3)) gives three channels of colour: other kinds of pixels are
#            converted, as they are where OpenCV decodes (5.0.0.93: red in all three cases).
# Seen:      tfds data sources decode with Pillow where there is no OpenCV, and do not convert. From
#            a palette PNG come the numbers of the palette's entries, three times: a red image is
#            black, and so is a blue one. From a CMYK JPEG come four channels of ink.
# Output (without TFDS's own lines):
#   tensorflow-datasets 4.9.10, pillow 13.0.0
#   red RGB PNG     shape (8, 8, 3), first pixel [255, 0, 0]
#   red palette PNG shape (8, 8, 3), first pixel [0, 0, 0]
#   red CMYK JPEG   shape (8, 8, 4), first pixel [0, 255, 255, 0]
#   as described
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet tensorflow-datasets==4.9.10 importlib_resources==7.1.0 \
    array_record==0.8.6 numpy==2.4.6 pillow==13.0.0
cd "$tmp"
cat > colours.py <<'EOF'
import io, sys
import PIL
import PIL.Image
import tensorflow_datasets as tfds

def encoded(image, file_format):
    out = io.BytesIO()
    image.save(out, file_format)
    return out.getvalue()

red = PIL.Image.new("RGB", (8, 8), (255, 0, 0))
files = {
    "red RGB PNG": encoded(red, "PNG"),
    "red palette PNG": encoded(red.quantize(4), "PNG"),
    "red CMYK JPEG": encoded(PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"),
}

class Files(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3))
        features = tfds.features.FeaturesDict({"image": image, "name": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for name, data in files.items():
            yield name, {"image": data, "name": name}

tfds.disable_progress_bar()
print(f"tensorflow-datasets {tfds.__version__}, pillow {PIL.__version__}")
builder = Files(data_dir="data", file_format="array_record")
builder.download_and_prepare()
images = {e["name"].decode(): e["image"] for e in builder.as_data_source(split="train")}
seen = {name: images[name][0, 0].tolist() for name in files}
for name in files:
    print(f"{name:15} shape {images[name].shape}, first pixel {seen[name]}")
if list(seen.values()) != [[255, 0, 0], [0, 0, 0], [0, 255, 255, 0]]:
    sys.exit("changed: other pixels are read")
print("as described")
EOF
"$tmp/venv/bin/python" colours.py
