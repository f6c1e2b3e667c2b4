#!/bin/sh
# Install the command line `tramontane` from this bundle, without a network:
#
#   ./install-cli.sh [FOLDER]      a virtual environment there [default: ~/.local/share/tramontane]
#
# Takes the Python that PYTHON names, else the first of python3.14 … python3.11, python3.
set -eu

say() { printf '%s\n' "install-cli.sh: $*"; }
fail() { printf '%s\n' "install-cli.sh: $*" >&2; exit 1; }

case ${1-} in
  -h|--help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
  -*) fail "must be a folder (got $1); see --help" ;;
esac
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
folder=${1:-$HOME/.local/share/tramontane}

fits() {
  "$1" -c 'import sys; sys.exit(sys.argv[1] not in open(sys.argv[2]).read().split())' \
    "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" "$here/pythons.txt" 2>/dev/null
}
python=${PYTHON-}
if [ -z "$python" ]; then
  for one in python3.14 python3.13 python3.12 python3.11 python3; do
    if command -v "$one" >/dev/null 2>&1 && fits "$one"; then python=$one; break; fi
  done
fi
if [ -z "$python" ] || ! fits "$python"; then
  fail "Python must be one of $(tr '\n' ' ' < "$here/pythons.txt")on x86-64 Linux (got ${python:-none}); set PYTHON, or run the image with your kubeconfig: docs/guides/air-gap.html#the-command-line"
fi

"$python" -m venv "$folder" || fail "$python must be able to make a virtual environment (install python3-venv)"
"$folder/bin/python" -m pip --isolated install --quiet --disable-pip-version-check --no-index \
  --no-cache-dir --find-links "$here/wheels" tramontane
say "$("$folder/bin/tramontane" --version) in $folder/bin"
say "next: ln -s $folder/bin/tramontane $folder/bin/kubectl-tramontane ~/.local/bin/"
