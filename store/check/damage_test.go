package check_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
	"github.com/koii-network/scale/store/kv"
)

const packOne = "packs/00000001.pack"

// deleteRow and changeRow make damage of the n-th row with a prefix.
func deleteRow(prefix string, n int) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		edit(t, dir, func(db kv.Store, b *kv.Batch) { b.Delete(rowsOf(t, db, prefix)[n].Key) })
	}
}

func changeRow(prefix string, n int, change func([]byte) []byte) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		edit(t, dir, func(db kv.Store, b *kv.Batch) {
			r := rowsOf(t, db, prefix)[n]
			b.Set(r.Key, change(r.Value))
		})
	}
}

func addRow(key, value string) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		edit(t, dir, func(_ kv.Store, b *kv.Batch) { b.Set([]byte(key), []byte(value)) })
	}
}

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte {
		if at < 0 {
			at += len(b)
		}
		b[at] ^= 1
		return b
	}
}

func changeFile(name string, change func([]byte) []byte) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		t.Helper()
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, change(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func onDisk(f func(dir string) error) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		if err := f(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// All damage is found by its own reading, told with what it touches, and ends
// neither the run nor the process.
func TestDamage(t *testing.T) {
	read := check.Options{ReadData: true}
	for _, c := range []struct {
		name   string
		damage func(testing.TB, string)
		opt    check.Options
		worst  check.Severity
		want   []string // each in one finding, in what it says, touches or asks to do
	}{
		{"chunk row deleted", deleteRow("b", 3), check.Options{}, check.Error, []string{"dataset ", "a chunk is not in the index", "put the same data again"}},
		{"chunk row of another place", changeRow("b", 3, flip(3)), check.Options{}, check.Error, []string{"the index does not say where a chunk is", "--forget-damaged"}},
		{"chunk row that is none", changeRow("b", 3, func([]byte) []byte { return []byte{0} }), check.Options{}, check.Error, []string{`row "b`, "not of the form"}},
		{"chunk row in a pack that is not there", changeRow("b", 3, func(b []byte) []byte { b[0] = 9; return b }), check.Options{}, check.Error, []string{"the index does not say where a chunk is"}},
		{"node deleted", deleteRow("d", 0), check.Options{}, check.Error, []string{"dataset ", "node of its DAG is missing"}},
		{"node changed", changeRow("d", 1, flip(9)), check.Options{}, check.Error, []string{`row "d`, "node of its DAG does not hash", "--forget-damaged"}},
		{"commitment row deleted", deleteRow("m", 0), check.Options{}, check.Error, []string{"1 commitment rows are missing or damaged"}},
		{"commitment row changed", changeRow("m", 1, flip(-1)), check.Options{}, check.Error, []string{"commitment row ", "cannot be proven"}},
		{"commitment row too long", changeRow("m", 1, func(b []byte) []byte { return append(b, 0) }), check.Options{}, check.Error, []string{"malformed"}},
		{"entry block deleted", deleteRow("e", 2), check.Options{}, check.Error, []string{"is missing or damaged: what it recorded"}},
		{"entry block changed", changeRow("e", 2, flip(40)), check.Options{}, check.Error, []string{`row "e`, "is missing or damaged: what it recorded"}},
		{"entry deleted", deleteRow("i", 2), check.Options{}, check.Error, []string{"entry 2 is missing"}},
		{"entries exchanged", func(t testing.TB, dir string) {
			edit(t, dir, func(db kv.Store, b *kv.Batch) {
				r := rowsOf(t, db, "i")
				b.Set(r[1].Key, r[2].Value)
				b.Set(r[2].Key, r[1].Value)
			})
		}, check.Options{}, check.Error, []string{"entry 1: the row of its place says 2", "tile 0 of level 0", "signs root"}},
		{"place of an entry deleted", deleteRow("x", 1), check.Options{}, check.Error, []string{"the row of its place says -1"}},
		{"tile changed", changeRow("t", 0, flip(40)), check.Options{}, check.Error, []string{"tile 0 of level 0", "do not put"}},
		{"tile deleted", deleteRow("t", 0), check.Options{}, check.Error, []string{"tile 0 of level 0"}},
		{"tile too long", changeRow("t", 0, func(b []byte) []byte { return append(b, b[:32]...) }), check.Options{}, check.Error, []string{"tile 0 of level 0"}},
		{"checkpoint changed", changeRow("c", 1, flip(-5)), check.Options{}, check.Error, []string{"the checkpoint of size"}},
		{"newest checkpoint deleted", deleteRow("c", 3), check.Options{}, check.Error, []string{"the log signed a ledger of 5 entries, only 4", "rows of entries, the ledger accounts for 4"}},
		{"all checkpoints deleted", func(t testing.TB, dir string) {
			edit(t, dir, func(db kv.Store, b *kv.Batch) {
				for _, r := range rowsOf(t, db, "c") {
					b.Delete(r.Key)
				}
			})
		}, check.Options{}, check.Error, []string{"no signed checkpoint"}},
		{"checkpoint at another size", func(t testing.TB, dir string) {
			edit(t, dir, func(db kv.Store, b *kv.Batch) {
				b.Set([]byte("c\x00\x00\x00\x00\x00\x00\x00\x02"), rowsOf(t, db, "c")[3].Value)
			})
		}, check.Options{}, check.Error, []string{"the checkpoint of size 2: it is of size 5"}},
		{"policy row deleted", deleteRow("o", 0), check.Options{}, check.Error, []string{"the row that says that it is a policy is missing"}},
		{"policy row of a dataset", addRow("o\x00\x00\x00\x00\x00\x00\x00\x01", ""), check.Options{}, check.Error, []string{"rows of policies"}},
		{"name pointing elsewhere", changeRow("n", 0, flip(-1)), check.Options{}, check.Error, []string{"copy@1, which it is, leads to entry"}},
		{"name deleted", deleteRow("nstream", 1), check.Options{}, check.Error, []string{"stream@2, which it is, leads to entry -1"}},
		{"name that is no entry's", addRow("nzzz\x00\x00\x00\x00\x01", "\x00\x00\x00\x00\x00\x00\x00\x01"), check.Options{}, check.Error, []string{"rows of versions of names"}},
		{"root deleted", deleteRow("k", 0), check.Options{}, check.Error, []string{"finds it by its root is missing"}},
		{"put row deleted", deleteRow("q", 0), check.Options{}, check.Error, []string{"what its put added is missing"}},
		{"put row of another version", changeRow("q", 0, func(b []byte) []byte { b[0]++; return b }), check.Options{}, check.Error, []string{"leads to entry"}},
		{"put row of a version that cannot be", changeRow("q", 0, func(b []byte) []byte { return append([]byte{0x80, 0x80, 0x80, 0x80, 8}, b[1:]...) }), check.Options{}, check.Error, []string{"what its put added is missing or damaged"}},
		{"end of packs deleted", deleteRow("p", 0), check.Options{}, check.Error, []string{"where the packs end is missing", "do not put"}},
		{"end of packs too early", changeRow("p", 0, func([]byte) []byte { return []byte{1, 100} }), check.Options{}, check.Error, []string{"behind the durable end"}},
		{"totals deleted", deleteRow("s", 0), check.Options{}, check.Warning, []string{"the row of totals is missing"}},
		{"totals changed", changeRow("s", 0, func([]byte) []byte { return []byte{1, 1, 1} }), check.Options{}, check.Warning, []string{"the totals are"}},
		{"foreign row", addRow("zebra", "stripes"), check.Options{}, check.Error, []string{`row "zebra": no row of a store`}},
		{"foreign row in the middle", addRow("exyz", "stripes"), check.Options{}, check.Error, []string{`row "exyz": not of the form`}},

		{"pack byte flipped, headers only", changeFile(packOne, flip(-50)), check.Options{}, check.Note, nil},
		{"pack byte flipped", changeFile(packOne, flip(-50)), read, check.Error, []string{"does not match its checksum", "dataset stream@2", "--forget-damaged"}},
		{"frame header flipped", changeFile(packOne, flip(24+30)), check.Options{}, check.Error, []string{"header does not match its checksum", "a chunk lies where a pack is damaged"}},
		{"pack header flipped", changeFile(packOne, flip(3)), read, check.Warning, []string{"first bytes are not those of pack 1"}},
		{"pack truncated", changeFile(packOne, func(b []byte) []byte { return b[:len(b)-1000] }), check.Options{}, check.Error, []string{"bytes were lost", "chunks cannot be read"}},
		{"pack emptied", changeFile(packOne, func([]byte) []byte { return nil }), read, check.Error, []string{"bytes were lost"}},
		{"pack filled up", changeFile(packOne, func(b []byte) []byte { return append(b, 1, 2, 3) }), read, check.Note, []string{"3 bytes behind the durable end"}},
		{"pack missing", onDisk(func(dir string) error { return os.Remove(filepath.Join(dir, packOne)) }), check.Options{}, check.Error, []string{"pack 1: the file is missing", "dataset stream@1"}},
		{"packs missing", onDisk(func(dir string) error { return os.RemoveAll(filepath.Join(dir, "packs")) }), read, check.Error, []string{"the packs cannot be read"}},
		{"pack behind the end", onDisk(func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "packs/00000002.pack"), []byte("half a header"), 0o644)
		}), read, check.Note, []string{"pack 2 is behind the durable end"}},
		{"pack is a directory", onDisk(func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, packOne)), os.Mkdir(filepath.Join(dir, packOne), 0o755))
		}), read, check.Error, []string{"it is not a file"}},

		{"mark missing", onDisk(func(dir string) error { return os.Remove(filepath.Join(dir, "highwater")) }), check.Options{}, check.Error, []string{"high-water mark cannot be read"}},
		{"mark damaged", changeFile("highwater", flip(30)), check.Options{}, check.Error, []string{"high-water mark is damaged"}},
		{"mark older", func(t testing.TB, dir string) {
			edit(t, dir, func(db kv.Store, _ *kv.Batch) {
				if err := os.WriteFile(filepath.Join(dir, "highwater"), rowsOf(t, db, "c")[1].Value, 0o600); err != nil {
					t.Fatal(err)
				}
			})
		}, check.Options{}, check.Warning, []string{"mark is of 3 entries, the ledger has 5"}},
		{"keys readable by others", onDisk(func(dir string) error {
			return errors.Join(os.Chmod(filepath.Join(dir, "keys/log.key"), 0o644), os.Chmod(filepath.Join(dir, "keys/curator.json"), 0o640))
		}), check.Options{}, check.Error, []string{"keys/log.key can be read by others (mode 0644)", "keys/curator.json can be read by others", "chmod 600"}},
		{"log key missing", onDisk(func(dir string) error { return os.Remove(filepath.Join(dir, "keys/log.key")) }), check.Options{}, check.Error, []string{"keys/log.key is missing"}},
		{"log key changed", changeFile("keys/log.key", flip(-10)), check.Options{}, check.Error, []string{"keys/log.key is not"}},
		{"curator key missing", onDisk(func(dir string) error { return os.Remove(filepath.Join(dir, "keys/curator.json")) }), check.Options{}, check.Warning, []string{"keys/curator.json is missing"}},
		{"curator key of another store", func(t testing.TB, dir string) {
			b, err := os.ReadFile(filepath.Join(newStore(t), "keys/curator.json"))
			if err != nil {
				t.Fatal(err)
			}
			changeFile("keys/curator.json", func([]byte) []byte { return b })(t, dir)
		}, check.Options{}, check.Warning, []string{"is not admitted by the ledger's policy"}},
		{"keys of another store", func(t testing.TB, dir string) {
			b, err := os.ReadFile(filepath.Join(newStore(t), "keys/log.key"))
			if err != nil {
				t.Fatal(err)
			}
			changeFile("keys/log.key", func([]byte) []byte { return b })(t, dir)
		}, check.Options{}, check.Error, []string{"not of this one"}},
		{"configuration missing", onDisk(func(dir string) error { return os.Remove(filepath.Join(dir, "scale.json")) }), read, check.Error, []string{"scale.json"}},
		{"configuration of another log", changeFile("scale.json", func(b []byte) []byte {
			return bytes.Replace(b, []byte("test.example/log"), []byte("test.example/lag"), 1)
		}), read, check.Error, []string{"not of one log"}},
		{"index missing", onDisk(func(dir string) error { return os.RemoveAll(filepath.Join(dir, "kv")) }), read, check.Error, []string{"the index", "cannot be read"}},
		{"index damaged", onDisk(func(dir string) error { return os.Remove(filepath.Join(dir, "kv/MANIFEST")) }), read, check.Error, []string{"the index cannot be opened"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copySmall(t)
			c.damage(t, dir)
			found, _ := run(t, dir, c.opt)
			worst := check.Note
			var all []string
			for _, f := range found {
				worst = max(worst, f.Severity)
				all = append(all, fmt.Sprintf("%v: %s %s +%d: %s", f.Severity, f.What, strings.Join(f.Affected, "; "), f.More, f.Do))
			}
			if worst != c.worst {
				t.Errorf("the worst is a %v, want %v", worst, c.worst)
			}
			for _, want := range c.want {
				if !strings.Contains(strings.Join(all, "\n"), want) {
					t.Errorf("nothing says %q", want)
				}
			}
			if t.Failed() {
				t.Log(strings.Join(all, "\n"))
			}
		})
	}
}

func TestNewerFormat(t *testing.T) {
	dir := copySmall(t)
	for _, format := range []string{"3", "0", "-1"} {
		changeFile("scale.json", func(b []byte) []byte { return bytes.Replace(b, []byte(`"format": 2`), []byte(`"format": `+format), 1) })(t, dir)
		if _, err := check.Run(t.Context(), dir, check.Options{}); !errors.Is(err, check.ErrFormat) {
			t.Errorf("format %s: %v", format, err)
		}
		changeFile("scale.json", func(b []byte) []byte { return bytes.Replace(b, []byte(`"format": `+format), []byte(`"format": 2`), 1) })(t, dir)
	}
	wantSound(t, dir, check.Options{})
}

// A store of format 1 is sound as long as nothing in it is packed.
func TestOlderFormat(t *testing.T) {
	older := changeFile("scale.json", func(b []byte) []byte { return bytes.Replace(b, []byte(`"format": 2`), []byte(`"format": 1`), 1) })
	dir := copySmall(t)
	older(t, dir)
	if found, sum := run(t, dir, check.Options{}); sum.Errors != 1 || !strings.Contains(found[0].What, "rows are packed, which a store of format 1") || !strings.Contains(found[0].Do, "scale.json") {
		t.Errorf("%+v, %v", sum, found)
	}
	dir = newStore(t)
	older(t, dir)
	putAll(t, dir, []store.Input{{Name: "tree", Path: tree(t)}})
	wantSound(t, dir, check.Options{ReadData: true})
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := check.Run(ctx, copySmall(t), check.Options{ReadData: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
