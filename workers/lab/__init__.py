"""The lab: real libvirt hosts, a Temporal server and our workers on one machine, in namespaces.

Everything of a lab is derived from `settings.LabSettings`, so labs of different names and ports live side by
side. `lab.Lab` is the face; the other modules hold one idea each.
"""
