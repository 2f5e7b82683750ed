//! Adapters behind the ports of act: local processes in cgroups and namespaces.
