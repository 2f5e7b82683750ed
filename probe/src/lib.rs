//! Performance tests run inside an instance's cgroup, and the passive signals of cgroup and node.
