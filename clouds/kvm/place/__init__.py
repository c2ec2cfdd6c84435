"""One KVM host as a cloud (clouds.capabilities): disks and images are files of one folder, instances libvirt's VMs.

`session`: calls to libvirt with errors told in our words. `store`: the folder. `disks`, `images`, `snapshots`,
`instances`, `catalogue`: the capabilities. What is known of a thing stands beside it, so that any process goes on."""
