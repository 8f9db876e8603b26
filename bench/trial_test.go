package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// copies is a tool that keeps copies of its inputs.
func copies(name string) tool {
	return tool{
		name:    name,
		version: command{args: []string{"echo", "copies 1"}},
		prepare: mkdir,
		put: func(j job) command {
			return shell(`rm -rf "$1/$3" && cp -r "$2" "$1/$3" && echo "$3"`, j.store, j.input, fmt.Sprint(j.n))
		},
		id: trimmed,
		get: func(j job) command {
			if j.tree {
				return command{args: []string{"tar", "-C", j.store, "-cf", "-", j.id}}
			}
			return command{args: []string{"cat", filepath.Join(j.store, j.id)}}
		},
		restore: func(j job) command { return command{args: []string{"cp", "-r", filepath.Join(j.store, j.id), j.out}} },
		check:   func(j job) command { return command{args: []string{"true"}} },
	}
}

// inputs makes a file, another version of it, and a tree.
func inputs(t *testing.T) (file, second, tree workload) {
	t.Helper()
	dir := t.TempDir()
	file = workload{name: "file", path: filepath.Join(dir, "file"), small: true, size: 1 << 20}
	second = workload{name: "second", path: filepath.Join(dir, "second"), base: file.path, size: 2 << 20}
	tree = workload{name: "tree", path: filepath.Join(dir, "tree"), tree: true, size: 100}
	if err := smallFiles(tree.path, &text{files: sources(t), seed: 3}, 3, 20); err != nil {
		t.Fatal(err)
	}
	for _, w := range []workload{file, second} {
		if err := os.WriteFile(w.path, make([]byte, w.size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return file, second, tree
}

func try(t *testing.T, to tool, w workload) (map[string]sample, string, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "scratch")
	tr := trial{tool: to, work: w, scratch: dir, verify: true}
	got, err := tr.run(t.Context())
	return got, dir, err
}

func TestTrial(t *testing.T) {
	file, second, tree := inputs(t)
	toFile := copies("to-file")
	toFile.toFile = true
	toFile.get = func(j job) command { return command{args: []string{"cp", filepath.Join(j.store, j.id), j.out}} }
	toFile.noTar = true
	hashes := tool{name: "hashes", prepare: mkdir, put: func(j job) command { return command{args: []string{"cksum", j.input}} }}
	for _, c := range []struct {
		tool  tool
		w     workload
		steps string
		least int64 // stored by the put
	}{
		{copies("scale"), file, "put get small", 1 << 20},
		{copies("scale"), second, "put get", 2 << 20},
		{copies("scale"), tree, "put again get restore", 20 << 10},
		{toFile, second, "put get", 2 << 20},
		{toFile, tree, "put again restore", 20 << 10},
		{hashes, second, "put", 0},
	} {
		what := c.tool.name + ", " + c.w.name
		got, dir, err := try(t, c.tool, c.w)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		var took []string
		for _, step := range steps {
			if s, ok := got[step]; ok {
				took = append(took, step)
				if s.Wall <= 0 || s.Peak <= 0 {
					t.Errorf("%s, %s: nothing was measured: %+v", what, step, s)
				}
			}
		}
		if strings.Join(took, " ") != c.steps {
			t.Errorf("%s: took the steps %q, want %q", what, took, c.steps)
		}
		if s := got[stepPut].Stored; s < c.least || s > c.least+1<<20 {
			t.Errorf("%s: %d bytes stored, want %d", what, s, c.least)
		}
		// Of a tree the files stay, and take no room.
		if _, err := os.Stat(dir); os.IsNotExist(err) == c.w.tree {
			t.Errorf("%s: the scratch directory is left: %v", what, err)
		}
		if c.w.tree {
			files := 0
			err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				info, err := d.Info()
				if files++; err == nil && info.Size() > 0 {
					err = fmt.Errorf("%s has %d bytes", d.Name(), info.Size())
				}
				return err
			})
			if err != nil || files < 40 {
				t.Errorf("%s: %d files are left: %v", what, files, err)
			}
		}
	}
}

func TestTrialRefuses(t *testing.T) {
	file, _, tree := inputs(t)
	for name, c := range map[string]struct {
		change func(*tool)
		w      workload
		want   string
	}{
		"bytes lost": {func(to *tool) {
			to.get = func(j job) command {
				return command{args: []string{"head", "-c", "1000", filepath.Join(j.store, j.id)}}
			}
		}, file, "something else"},
		"a file of the archive lost": {func(to *tool) {
			to.get = func(j job) command { return shell(`tar -C "$1" --exclude '*7.go' -cf - "$2"`, j.store, j.id) }
		}, tree, "something else"},
		"a file lost": {func(to *tool) {
			to.restore = func(j job) command {
				return shell(`cp -r "$1/$2" "$3" && rm "$3"/part-00/dir-00/file-000007.go`, j.store, j.id, j.out)
			}
		}, tree, "something else"},
		"the store does not check": {func(to *tool) {
			to.check = func(job) command { return shell("echo broken >&2; exit 4") }
		}, file, "broken"},
		"put fails":   {func(to *tool) { to.put = func(job) command { return shell("echo full >&2; exit 6") } }, file, "full"},
		"it names no": {func(to *tool) { to.put = func(job) command { return shell("true") } }, file, "not one name"},
	} {
		to := copies("scale")
		c.change(&to)
		if _, _, err := try(t, to, c.w); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestMeasure(t *testing.T) {
	_, second, _ := inputs(t)
	elsewhere := copies("elsewhere")
	elsewhere.only = []string{"another"}
	var order []string
	results, err := measure(t.Context(), []tool{copies("scale"), elsewhere, copies("peer")}, second, 2, t.TempDir(),
		func(round int, to tool) { order = append(order, fmt.Sprint(round, to.name)) })
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(order, " "), "0scale 0peer 1peer 1scale"; got != want {
		t.Errorf("the turns were %q, want %q", got, want)
	}
	var rows []string
	for _, r := range results {
		rows = append(rows, r.Step+" "+r.Tool)
		if len(r.Trials) != 2 || r.Size != second.size || r.Max.Wall < r.Min.Wall {
			t.Errorf("%+v", r)
		}
		if (r.Step == stepGet) && r.Durable != nil {
			t.Error("a get is durable")
		}
	}
	if got, want := strings.Join(rows, ", "), "put scale, put peer, get scale, get peer"; got != want {
		t.Errorf("the results are of %q, want %q", got, want)
	}
}

func TestPresent(t *testing.T) {
	gone := func(name string, optional bool) tool {
		return tool{name: name, optional: optional, version: command{args: []string{"/nonexistent/" + name}}}
	}
	there, said, err := present(t.Context(), []tool{copies("scale"), gone("spare", true)})
	if err != nil || len(there) != 1 || said["scale"] != "copies 1" || said["spare"] != "absent" {
		t.Errorf("%d there, %v, %v", len(there), said, err)
	}
	_, _, err = present(t.Context(), []tool{gone("peer", false), copies("scale"), gone("other", false)})
	if err == nil || !strings.Contains(err.Error(), "peer: MISSING") || !strings.Contains(err.Error(), "other: MISSING") {
		t.Errorf("missing peers: %v", err)
	}
}

// Peers that are needed are missing where there are none, and the one that is not needed is
// not.
func TestPeersMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, said, err := present(t.Context(), peerTools(t.TempDir()))
	if err == nil {
		t.Fatal("nothing is missing")
	}
	for _, name := range []string{"restic", "kopia", "ipfs", "borg", "casync", "zstd", "openssl"} {
		if !strings.Contains(err.Error(), name+": MISSING") {
			t.Errorf("%s is not missing: %v", name, err)
		}
	}
	if strings.Contains(err.Error(), "desync") || said["desync"] != "absent" {
		t.Errorf("desync, which is optional: %q, %v", said["desync"], err)
	}
}

func TestPick(t *testing.T) {
	all := []tool{{name: "scale"}, {name: "a"}, {name: "b"}}
	if got, err := pick(all, "b"); err != nil || len(got) != 2 || got[0].name != "scale" || got[1].name != "b" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := pick([]tool{{name: "scale"}}, "c"); err == nil {
		t.Error("a tool that is not there was picked")
	}
}

// What peers print of a put leads to the name that reading wants.
func TestID(t *testing.T) {
	said, err := json.Marshal(map[string]any{"id": "x", "rootEntry": map[string]any{"obj": "k12"}})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := kopia("").id(said); err != nil || id != "k12" {
		t.Errorf("kopia: %q, %v", id, err)
	}
	if id, err := ipfs("").id([]byte("bafy\n")); err != nil || id != "bafy" {
		t.Errorf("ipfs: %q, %v", id, err)
	}
	if _, err := ipfs("").id(nil); err == nil {
		t.Error("ipfs: nothing is a name")
	}
}
