"""Name the reasons of a container that waits and that waiting does not help.

Source: kubelet, pkg/kubelet/images/types.go and pkg/kubelet/container/sync_result.go.
"""

#: The image cannot be had on this node: a wrong name, no registry, or `imagePullPolicy: Never`.
NO_IMAGE = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
#: The image is there, and no container can be made of it.
NO_CONTAINER = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)
