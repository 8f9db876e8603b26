package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/koii-network/scale"

// layers says which of our packages each package may import; tests lists what its
// test files may import besides. A package that is not here has no place yet.
var layers = map[string]struct{ imports, tests []string }{
	"compress":        {imports: []string{"compress/zenc"}},
	"compress/zenc":   {},
	"dag/chunk":       {},
	"dag/extsort":     {},
	"dag":             {imports: []string{"dag/chunk", "dag/extsort"}},
	"dag/fstree":      {imports: []string{"dag", "dag/extsort"}},
	"dag/ledger":      {},
	"dag/proof":       {imports: []string{"dag", "dag/ledger"}},
	"dag/audit":       {imports: []string{"dag", "dag/ledger", "dag/proof"}},
	"store/kv":        {},
	"store/badgerkv":  {imports: []string{"store/kv"}, tests: []string{"store/storetest"}},
	"store/pack":      {imports: []string{"compress"}, tests: []string{"store/storetest"}},
	"store/storetest": {imports: []string{"compress", "store/kv", "store/pack"}, tests: []string{"store/badgerkv"}},
	"store/rowpack":   {imports: []string{"compress"}, tests: []string{"dag"}},
	"store/filecache": {imports: []string{"dag", "dag/fstree"}},
	"store/ingest":    {imports: []string{"compress", "dag", "dag/chunk", "dag/extsort", "dag/fstree", "store/filecache", "store/pack"}},
	"store": {
		imports: []string{"compress", "dag", "dag/audit", "dag/chunk", "dag/extsort", "dag/fstree", "dag/ledger", "dag/proof", "store/badgerkv", "store/filecache", "store/ingest", "store/kv", "store/pack", "store/rowpack"},
		tests:   []string{"anchor", "store/check", "store/storetest"},
	},
	"store/check": {
		imports: []string{"compress", "dag", "dag/chunk", "dag/extsort", "dag/ledger", "dag/proof", "store/badgerkv", "store/kv", "store/pack"},
		tests:   []string{"store", "store/rowpack", "store/storetest"},
	},
	"anchor":           {imports: []string{"dag/ledger"}, tests: []string{"anchor/extension", "anchor/k2", "anchor/arweave", "dag", "dag/proof", "store"}},
	"anchor/endpoint":  {imports: []string{"anchor"}, tests: []string{"anchor/anchortest"}},
	"anchor/extension": {imports: []string{"anchor", "compress", "dag/ledger"}},
	"anchor/k2":        {imports: []string{"anchor", "anchor/endpoint"}, tests: []string{"anchor/anchortest", "anchor/devnet", "dag/ledger", "store"}},
	"anchor/arweave":   {imports: []string{"anchor", "anchor/endpoint"}, tests: []string{"anchor/anchortest", "anchor/devnet", "anchor/extension", "anchor/k2", "dag/ledger", "store"}},
	// What anchors one store: its configuration, the worker of it, restoring.
	"anchor/agent": {
		imports: []string{"anchor", "anchor/arweave", "anchor/endpoint", "anchor/extension", "anchor/k2", "dag/ledger", "dag/proof", "store"},
		tests:   []string{"anchor/anchortest", "anchor/devnet"},
	},
	// Local chains, and faults on the way to them: no part of the product.
	"anchor/devnet":       {},
	"anchor/devnet/serve": {imports: []string{"anchor/arweave", "anchor/devnet"}},
	"anchor/anchortest":   {imports: []string{"anchor"}, tests: []string{"anchor", "anchor/arweave", "anchor/devnet", "anchor/endpoint", "anchor/extension", "anchor/k2", "dag/ledger", "store"}},
	// The generated code, which needs none of ours: other languages make the same from the files.
	"proto/scale/v1": {},
	// The client chunks, seals and verifies at its own end, so it needs what the engine is made of.
	"grpcapi": {imports: []string{"anchor", "compress", "dag", "dag/audit", "dag/extsort", "dag/fstree", "dag/ledger", "dag/proof", "proto/scale/v1", "store", "store/check", "store/filecache", "store/ingest", "store/pack"}, tests: []string{"store/kv", "store/storetest"}},
	"cmd/scale": {
		imports: []string{"anchor", "anchor/agent", "anchor/arweave", "anchor/endpoint", "anchor/k2", "compress", "grpcapi", "proto/scale/v1", "dag", "dag/audit", "dag/chunk", "dag/extsort", "dag/fstree", "dag/ledger", "dag/proof", "store", "store/badgerkv", "store/check", "store/kv", "store/pack"},
		tests:   []string{"anchor/devnet", "store/storetest"},
	},
	// bench drives the binary as its users do, what the binary has no verb for by its API, the
	// engine for ranges and proofs, which take less than starting a process, and the stages of
	// a put one by one. Anchors it measures without the binary, against the local chains.
	"bench": {imports: []string{"anchor", "anchor/agent", "anchor/arweave", "anchor/devnet", "anchor/endpoint", "anchor/extension", "anchor/k2", "compress", "dag", "dag/fstree", "dag/proof", "proto/scale/v1", "store", "store/badgerkv", "store/ingest", "store/kv", "store/pack", "store/rowpack"}},
}

// owners names the packages that alone may import a library (or one below it), so
// that replacing the library is a change to one place. Tests are not exempt.
var owners = map[string][]string{
	"github.com/PlakarKorp/go-cdc-chunkers": {"dag/chunk"},
	"github.com/dgraph-io/badger":           {"store/badgerkv"},
	"github.com/klauspost/compress":         {"compress", "compress/zenc"},
	"github.com/spf13/cobra":                {"cmd/scale"},
	"filippo.io/age":                        {"cmd/scale"},
	"filippo.io/edwards25519":               {"dag/ledger"},
	// The servers of a test network make keys for it.
	"github.com/gagliardetto/solana-go": {"anchor/k2", "anchor/devnet/serve"},
	"github.com/everFinance/goar":       {"anchor/arweave"},
}

// pure packages compute: they touch no file, no network and no process.
var pure = []string{"compress", "compress/zenc", "dag", "dag/audit", "dag/chunk", "dag/extsort", "dag/ledger", "dag/proof"}

var impure = []string{"os", "net", "syscall", "golang.org/x/sys", "io/ioutil", "path/filepath"}

// topLevel is all that may stand at the top, besides names that begin with a dot
// and what git ignores.
var topLevel = []string{
	"cmd", "dag", "compress", "anchor", "store", "grpcapi", "proto", "bench",
	"go.mod", "go.sum", "Makefile", "README.md", "bin",
}

// TestLayering reads the source files by itself rather than through go list, so
// that go test sees what the result depends on and does not answer from its cache.
func TestLayering(t *testing.T) {
	root := filepath.Join("..", "..")
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("%s: not a name of the top level", e.Name())
		}
	}

	seen := make(map[string]bool)
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if file != root && (name[0] == '.' || name[0] == '_' || name == "testdata" || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		if _, ok := layers[pkg]; !ok && !seen[pkg] {
			t.Errorf("package %s has no place in the table of layers", pkg)
		}
		seen[pkg] = true
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			if why := refused(pkg, imported, strings.HasSuffix(name, "_test.go")); why != "" {
				t.Errorf("%s/%s imports %s: %s", pkg, name, imported, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range slices.Sorted(maps.Keys(layers)) {
		if !seen[pkg] {
			t.Errorf("the table of layers names %s, which does not exist", pkg)
		}
	}
}

// refused says why a file of pkg may not import a package, or nothing if it may.
func refused(pkg, imported string, test bool) string {
	if imported == module {
		return "there is no package at the top"
	}
	if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
		l := layers[pkg]
		// An external test package imports the one that it tests.
		if slices.Contains(l.imports, ours) || test && (ours == pkg || slices.Contains(l.tests, ours)) {
			return ""
		}
		return "the layers do not allow it"
	}
	for library, by := range owners {
		if within(imported, library) && !slices.Contains(by, pkg) {
			return fmt.Sprintf("only %s may", strings.Join(by, ", "))
		}
	}
	if test {
		return ""
	}
	if within(imported, "testing") && pkg != "store/storetest" && pkg != "anchor/anchortest" {
		return "testing is for tests"
	}
	if slices.Contains(pure, pkg) && slices.ContainsFunc(impure, func(i string) bool { return within(imported, i) }) {
		return pkg + " is pure"
	}
	return ""
}

// within reports whether an import path is a package or lies below it.
func within(imported, library string) bool {
	return imported == library || strings.HasPrefix(imported, library+"/")
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		pkg, imported string
		test, refused bool
	}{
		{"dag", module + "/dag/chunk", false, false},
		{"dag/chunk", module + "/dag", false, true},
		{"compress", module + "/store", true, true},
		{"store", module + "/store/check", false, true},
		{"store", module + "/store/check", true, false},
		{"store", module + "/store", true, false},
		{"store", module + "/store", false, true},
		{"store", module, false, true},
		{"new", module + "/dag", false, true},
		{"store/badgerkv", "github.com/dgraph-io/badger/v4/options", false, false},
		{"store", "github.com/dgraph-io/badger/v4", true, true},
		{"store", "github.com/dgraph-io/badgers", false, false},
		{"dag", "github.com/klauspost/compress/zstd", false, true},
		{"dag/ledger", "os", false, true},
		{"dag/ledger", "net/http", false, true},
		{"dag/ledger", "os", true, false},
		{"store", "os", false, false},
		{"store", "testing", false, true},
		{"store/storetest", "testing/iotest", false, false},
	} {
		if why := refused(c.pkg, c.imported, c.test); (why != "") != c.refused {
			t.Errorf("refused(%q, %q, %t) = %q", c.pkg, c.imported, c.test, why)
		}
	}
}
