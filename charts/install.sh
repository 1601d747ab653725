# Sourced after tests/cluster/choose.sh: makes the images, gives them to the cluster, and installs
# both charts as a user would. Sets `prefix`, the repository prefix of the images.

# The tag follows the content, so that a changed program is rolled out and an unchanged one is not.
programs=(patchbay-operator patchbay-sidecar patchbay-launcher)
image_tag=$(cd "$PATCHBAY_BIN_DIR" && sha256sum "${programs[@]}" | sha256sum | cut -c1-12)

build_images() { go run -C "$root/images/build" . "$@"; }

if [[ -n ${PATCHBAY_CLUSTER:-} ]]; then
  prefix=patchbay.dev
  build_images build --tag "$image_tag" | xargs "$PATCHBAY_CLUSTER" load-image
else
  prefix=$REGISTRY
  build_images push --tag "$image_tag" --registry "$REGISTRY"
fi

helm upgrade --install patchbay-crds "$root/charts/patchbay-crds" --namespace patchbay-system --create-namespace --wait >/dev/null
kubectl label --overwrite namespace patchbay-system pod-security.kubernetes.io/enforce=restricted >/dev/null
helm upgrade --install patchbay "$root/charts/patchbay" --namespace patchbay-system --wait --timeout 3m \
  --set "operator.image.repository=$prefix/operator,operator.image.tag=$image_tag" \
  --set "sidecar.image.repository=$prefix/sidecar,sidecar.image.tag=$image_tag"
