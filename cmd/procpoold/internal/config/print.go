package config

import (
	"fmt"
	"io"
	"strings"
)

// Print writes the values that hold, as TOML, and where each comes from. Values of environment variables are left out.
func (c *Config) Print(w io.Writer) error {
	var b strings.Builder
	printKeys(&b, daemonKeys, c, c.origin, true)
	for i := range c.Pools {
		p := &c.Pools[i]
		fmt.Fprintf(&b, "\n# pool %s, from %s\n", p.Name, p.File)
		printKeys(&b, poolKeys, p, p.origin, false)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printKeys writes keys. What nobody has said is a comment in a pool, and what holds instead is in words; the daemon knows the value.
func printKeys[C any](b *strings.Builder, keys []key[C], c *C, origin map[string]string, effective bool) {
	in := ""
	for _, k := range keys {
		table, name, ok := strings.Cut(k.name, ".")
		if !ok {
			table, name = "", k.name
		}
		if table != in {
			fmt.Fprintf(b, "[%s]\n", table)
			in = table
		}
		line, from := name+" = "+k.show(c), origin[k.name]
		switch {
		case from != "":
		case effective && !strings.HasSuffix(line, `= ""`):
			from = "default"
		case k.def == "":
			continue
		default:
			line, from = "# "+name+": "+k.def, "default"
		}
		fmt.Fprintf(b, "%-40s # %s\n", line, from)
	}
}
