#!/usr/bin/env bash
# Builds a bundle that measures a GPU on a machine without toolchain, network or Vulkan loader: a stripped binary with the two
# networks that are measured, the loader and what drivers ask it for (Debian packages for x86-64), MNIST's test images, and the
# runner, benches/gpu.sh.
#
#   benches/gpu-bundle.sh [FOLDER]       FOLDER: where to put it [default: target/gpu-bundle]
#
# There: FOLDER/gpu.sh all, or slice by slice. Here, afterwards: copy what it wrote to benches/results/.
set -euo pipefail
cd "$(dirname "$0")/.."
bundle=${1:-target/gpu-bundle}
most=$((60 << 20))

cargo build --release -p cryptodl-cli --no-default-features --features gpu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
strip -o "$made/cryptodl" target/release/cryptodl
cp benches/gpu.sh benches/common.sh "$made"
git describe --always --dirty >"$made/commit"

"$made/cryptodl" data fetch mnist
mkdir -p "$made/data/mnist" "$made/lib" "$made/debs/partial" "$made/debs/root"
cp "$("$made/cryptodl" data path mnist)"/t10k-* "$made/data/mnist"

# libGLX and X11's libraries are what NVIDIA's driver is linked with; nothing is drawn.
[ "$(id -u)" -eq 0 ] && apt-get update -qq || sudo apt-get update -qq
(cd "$made/debs" && apt-get download -qq libvulkan1 libglvnd0 libgl1 libglx0 libegl1 libopengl0 libgles2 libx11-6 libxext6 \
    libxcb1 libxau6 libxdmcp6 libbsd0 libmd0)
for package in "$made"/debs/*.deb; do dpkg -x "$package" "$made/debs/root"; done
find "$made/debs/root" -name '*.so.*' -exec cp -P -t "$made/lib" {} +
rm -r "$made/debs"

size=$(du -sb "$made" | cut -f 1)
[ "$size" -lt "$most" ] || { echo "the bundle has $size bytes, more than $most" >&2; exit 1; }
rm -rf "$bundle"
mkdir -p "$(dirname "$bundle")"
cp -r "$made" "$bundle"
chmod 755 "$bundle"
echo "$bundle: $size bytes; there: ./gpu.sh all"
