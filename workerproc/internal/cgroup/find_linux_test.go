package cgroup

import "testing"

func TestACgroupIsFoundWhereverItIsMounted(t *testing.T) {
	const hybrid = `24 23 0:20 / /sys/fs/cgroup rw - tmpfs tmpfs rw
25 24 0:21 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
30 24 0:26 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
`
	const unified = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	for name, c := range map[string]struct{ cgroups, mounts, want, says string }{
		"unified":             {cgroups: "0::/system.slice/p.service\n", mounts: unified, want: "/sys/fs/cgroup/system.slice/p.service"},
		"hybrid":              {cgroups: "4:memory:/other\n1:name=systemd:/x\n0::/a/b\n", mounts: hybrid, want: "/sys/fs/cgroup/unified/a/b"},
		"the root":            {cgroups: "0::/\n", mounts: unified, want: "/sys/fs/cgroup"},
		"a part is mounted":   {cgroups: "0::/pod/c1/x\n", mounts: "30 24 0:26 /pod/c1 /sys/fs/cgroup ro - cgroup2 cgroup ro\n", want: "/sys/fs/cgroup/x"},
		"another part":        {cgroups: "0::/pod/c10\n", mounts: "30 24 0:26 /pod/c1 /sys/fs/cgroup ro - cgroup2 cgroup ro\n", says: "the cgroup /pod/c10 of this process cannot be seen from here: /sys/fs/cgroup shows /pod/c1"},
		"outside a namespace": {cgroups: "0::/../other\n", mounts: unified, says: "the cgroup /../other of this process cannot be seen from here: /sys/fs/cgroup shows /"},
		"spaces":              {cgroups: "0::/a b\n", mounts: `30 24 0:26 / /mnt/my\040cgroups rw - cgroup2 none rw` + "\n", want: "/mnt/my cgroups/a b"},
		"version 1 alone":     {cgroups: "4:memory:/other\n", mounts: "25 24 0:21 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", says: "this system has no cgroups of version 2"},
		"not mounted":         {cgroups: "0::/a\n", mounts: "", says: "this system has no cgroups of version 2"},
	} {
		got, err := locate(c.cgroups, c.mounts)
		says := ""
		if err != nil {
			says = err.Error()
		}
		if got != c.want || says != c.says {
			t.Errorf("%s: got %q and %q, want %q and %q", name, got, says, c.want, c.says)
		}
	}
}

func TestOnlyOurOwnCgroupsAreRemoved(t *testing.T) {
	for name, want := range map[string]bool{
		"procpool-1": true, "procpool-3035420194": true,
		"procpool-": false, "procpool": false, "procpool-1.slice": false, "procpool-exporter.service": false, "supervisor": false, "x-procpool-1": false,
	} {
		if got := ours(name); got != want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
