#!/bin/sh
# Bring Tramontane's images to where a cluster finds them, without a network beyond it.
#
#   ./load.sh --registry registry.hall.example:5000/tramontane
#   ./load.sh --containerd
#
# POSIX sh; needs sha256sum, and skopeo or ctr. Writes nothing but values-airgap.yaml.
set -eu

usage() {
  cat <<'END'
Usage: load.sh --registry HOST[:PORT][/PATH] [--plain-http] [--authfile FILE] [options]
       load.sh --containerd [ADDRESS] [options]
       load.sh --check

  --registry HOST/PATH   copy the images into a registry, by skopeo; digests stay as they are
  --plain-http           the registry speaks HTTP, or HTTPS that nobody vouches for
  --authfile FILE        the registry's credentials, as `skopeo login` writes them
  --containerd [ADDRESS] import the images into the containerd of this node, by ctr
                         [default: /run/containerd/containerd.sock]; once on every node
  --check                compare the checksums, and no more

  --values FILE          where to write the chart's values [default: values-airgap.yaml]
  -h, --help             this text

Checksums are compared first, always. They prove that the bundle is whole; who made it is proved by
a signature over SHA256SUMS, if its maker has given you one.
END
}

say() { printf '%s\n' "load.sh: $*"; }
fail() { printf '%s\n' "load.sh: $*" >&2; exit 1; }
misused() { printf '%s\n' "load.sh: $*; see --help" >&2; exit 2; }
# What follows an option: not nothing, and not the next option.
given() { case $2 in '' | -*) misused "$1: must have $3 (got ${2:-none})" ;; esac; }
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 must be on PATH (got none); install $2"; }

mode='' registry='' address=/run/containerd/containerd.sock tls=true authfile='' values=''
while [ $# -gt 0 ]; do
  case $1 in
    --registry) given "$1" "${2-}" HOST/PATH; mode=registry; registry=$2; shift ;;
    --containerd)
      mode=containerd
      case ${2-} in /*) address=$2; shift ;; esac ;;
    --check) mode=check ;;
    --plain-http) tls=false ;;
    --authfile) given "$1" "${2-}" "a file"; authfile=$2; shift ;;
    --values) given "$1" "${2-}" "a file"; values=$2; shift ;;
    -h|--help) usage; exit 0 ;;
    *) misused "must be one of the options (got $1)" ;;
  esac
  shift
done
[ -n "$mode" ] || misused "must have --registry, --containerd or --check (got none of them)"
case $registry in *://* | /*) misused "--registry: must be HOST/PATH without a scheme (got $registry)" ;; esac
registry=${registry%/}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
values=${values:-values-airgap.yaml}
case $values in /*) ;; *) values=$PWD/$values ;; esac
case $authfile in '' | /*) ;; *) authfile=$PWD/$authfile ;; esac
cd "$here"

need sha256sum coreutils
[ -f SHA256SUMS ] || fail "SHA256SUMS must lie beside load.sh (got none); unpack the bundle again"
if ! wrong=$(sha256sum --check --quiet --strict SHA256SUMS 2>&1); then
  fail "the bundle must be what SHA256SUMS says (got: $(printf '%s' "$wrong" | head -n 3 | tr '\n' ';')); fetch it again"
fi
# A file without a line there has been compared with nothing.
for one in images.txt images/* chart/*; do
  sed 's/^[^ ]* [ *]//' SHA256SUMS | grep -Fqx -- "$one" ||
    fail "SHA256SUMS must name all that is taken from the bundle (got no line for $one); fetch it again"
done
say "$(wc -l < SHA256SUMS | tr -d ' ') files are whole"
[ "$mode" != check ] || exit 0

# Lines of images.txt: NAME:VERSION@DIGEST, without a registry.
references() { grep -v '^#' images.txt; }
name_of() { printf '%s' "${1%%:*}"; }
version_of() { rest=${1#*:}; printf '%s' "${rest%%@*}"; }

copy_to_registry() {
  need skopeo skopeo
  set -- --preserve-digests "--dest-tls-verify=$tls"
  [ -z "$authfile" ] || set -- "$@" --dest-authfile "$authfile"
  for one in $(references); do
    name=$(name_of "$one") version=$(version_of "$one")
    skopeo copy --quiet "$@" "oci-archive:images/$name-$version.oci.tar:$version" \
      "docker://$registry/$name:$version" || fail "$registry must take $name (got the error above)"
    say "$registry/$name:$version@${one#*@}"
  done
}

import_into_containerd() {
  need ctr containerd
  for one in $(references); do
    name=$(name_of "$one") version=$(version_of "$one")
    full=$registry/$name
    ctr --address "$address" --namespace k8s.io images import --base-name "$full" \
      "images/$name-$version.oci.tar" >/dev/null || fail "containerd at $address must take $name (got the error above)"
    # The kubelet asks by digest, and containerd knows an image by nothing but its names.
    ctr --address "$address" --namespace k8s.io images tag --force \
      "$full:$version" "$full@${one#*@}" >/dev/null || fail "containerd at $address must name $name by its digest"
    say "$full:$version@${one#*@}"
  done
}

pull=IfNotPresent
if [ "$mode" = registry ]; then
  copy_to_registry
else
  # No registry: a name that none answers to, and pods that never ask.
  registry=tramontane.local pull=Never
  import_into_containerd
fi

entry() {
  one=$(references | grep "^$1:")
  printf '%srepository: %s\n%stag: "%s"\n%sdigest: %s\n' "$2" "$1" "$2" "$(version_of "$one")" "$2" "${one#*@}"
}
{
  printf '# Written by load.sh: where the images of this bundle are.\n'
  printf 'image:\n  registry: %s\n  pullPolicy: %s\n' "$registry" "$pull"
  entry tramontane '  '
  printf 'agent:\n  image:\n'
  entry tramontane-agent '    '
} > "$values"

chart=$(echo chart/*.tgz)
say "next:"
printf '  helm upgrade --install tramontane %s \\\n    --namespace tramontane-system --create-namespace \\\n    --values %s\n' \
  "$here/$chart" "$values"
