"""Build the two container images, without a container engine and without root.

An image is three layers in an OCI archive: Debian's Python (the same layer in both images), the
packages of uv.lock that this image needs, and our own code. What goes in stands in `images/`. The
same checkout makes the same digest, byte for byte.

    recipe    images/*.toml, and the globs in them (pure)
    debian    base.lock; packages fetched and checked by apt
    python    packages of uv.lock, installed by uv
    tree      the three layers as folders: merged, stripped, compiled
    layer     a folder as a reproducible tar (pure)
    oci       layers as an image, an image as an archive (pure)
    sbom      what is in an image, as CycloneDX
    build     all of it in order
    smoke     what must start in a built image

    python -m tramontane.lab.image build      both images into build/images
    python -m tramontane.lab.image lock       newest Debian packages into images/base.lock
"""
