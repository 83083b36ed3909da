package mapping

import (
	"slices"
	"strings"
	"testing"

	"github.com/procpool/procpool/cmd/procpool/internal/text"
)

func TestPlaceholders(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, command, item, want string
	}{
		{"none: the item is appended", "wc -m", "a.txt", "wc|-m|a.txt"},
		{"the item", "wc -m {}", "a.txt", "wc|-m|a.txt"},
		{"inside an argument", "dd if={}", "a.txt", "dd|if=a.txt"},
		{"several in one argument", "mv {} {.}-{#}{.}", "a.txt", "mv|a.txt|a-4a"},
		{"without extension", "echo {.}", "dir.d/a.tar.gz", "echo|dir.d/a.tar"},
		{"without extension, where only the directory has one", "echo {.}", "dir.d/a", "echo|dir.d/a"},
		{"without extension, of a name that is only that", "echo {.} {/.}", "home/.profile", "echo|home/.profile|.profile"},
		{"last element", "echo {/}", "dir/a.txt", "echo|a.txt"},
		{"directory", "echo {//}", "dir/sub/a.txt", "echo|dir/sub"},
		{"directory of a bare name", "echo {//}", "a.txt", "echo|."},
		{"last element without extension", "echo {/.}", "dir/a.txt", "echo|a"},
		{"number", "echo {#}", "x", "echo|4"},
		{"an item is not read again", "echo {} {/}", "{#}", "echo|{#}|{#}"},
		{"an item is one argument", "echo {}", "a b; rm *", "echo|a b; rm *"},
		{"an empty item", "echo {}", "", "echo|"},
		{"other braces", "awk {print} {} {}{", "f", "awk|{print}|f|f{"},
		{"the program itself", "{}", "true", "true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tmpl := parseTemplate(strings.Fields(c.command), false)
			if got := strings.Join(tmpl.words(&job{Seq: 4, Items: []string{c.item}}), "|"); got != c.want || tmpl.hasSlots {
				t.Errorf("%q for item %q: got %s and slots %v, want %s", c.command, c.item, got, tmpl.hasSlots, c.want)
			}
		})
	}
}

func TestSlotsAreForTheWorker(t *testing.T) {
	t.Parallel()
	tmpl := parseTemplate([]string{"run", "{}-{%}-{%}", "{%}"}, false)
	c := tmpl.expand(&job{Seq: 1, Items: []string{"{%}"}})
	argv, slots := c.Argv, c.Slots
	want := []slotPlace{{1, 4}, {1, 5}, {2, 0}}
	if string(argv[1]) != "{%}--" || !slices.Equal(slots, want) || !tmpl.hasSlots {
		t.Fatalf("got %q with slots %v, want {%%}-- with slots %v", argv[1], slots, want)
	}
}

func TestSlotsAreInsertedFromTheEnd(t *testing.T) { // not parallel: the slot is the process's
	c := command{Argv: []text.Bytes{text.Bytes("run"), text.Bytes("{%}--"), nil}, Slots: []slotPlace{{1, 4}, {1, 5}, {2, 0}}, SlotFile: t.TempDir() + "/none"}
	slot.number = 12
	defer func() { slot.number = 0 }()
	got, err := c.argv()
	if want := []string{"run", "{%}-12-12", "12"}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
	c.Slots = []slotPlace{{1, 9}}
	if got, err := c.argv(); err == nil {
		t.Fatalf("a slot outside of its argument: got %q, want an error", got)
	}
}

func TestPlaceholdersForSeveralItems(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ command, items, want string }{
		{"echo", "a.c b.c", "echo|a.c|b.c"},
		{"echo {} -", "a.c b.c", "echo|a.c|b.c|-"},
		{"echo {.} {#}", "a.c b.c", "echo|a|b|4"},
		{"echo x{}y", "a b", "echo|xa by"},
		{"echo {1}-{2}={3}", "a b", "echo|a-b="},
		{"mv {1} {2}", "a b", "mv|a|b"},
		{"mv {2} {1}.old", "a", "mv||a.old"},
		{"awk {0} {x} {}", "a b", "awk|{0}|{x}|a|b"},
	} {
		tmpl := parseTemplate(strings.Fields(c.command), true)
		if got := strings.Join(tmpl.words(&job{Seq: 4, Items: strings.Fields(c.items)}), "|"); got != c.want {
			t.Errorf("%q for items %q: got %s, want %s", c.command, c.items, got, c.want)
		}
	}
	tmpl := parseTemplate([]string{"awk", "{1}"}, false)
	if got := strings.Join(tmpl.words(&job{Seq: 1, Items: []string{"f"}}), "|"); got != "awk|{1}|f" {
		t.Errorf("without -n: got %s, want awk|{1}|f", got)
	}
}
