package compress

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Inputs, each of the size asked for and the same every time.

func random(size int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	p := make([]byte, size)
	r.Read(p)
	return p
}

func base64Text(size int) []byte {
	return []byte(base64.StdEncoding.EncodeToString(random(size)))[:size]
}

// jsonLines are records that differ in a signature and a few numbers.
func jsonLines(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	sig := random(64)
	var b bytes.Buffer
	for i := 0; b.Len() < size; i++ {
		for j := range sig {
			sig[j] = byte(r.Uint32())
		}
		fmt.Fprintf(&b, `{"time":%q,"node":"node-%03d","task":"task-%d","ok":%t,"ms":%d,"signature":%q}`+"\n",
			time.Unix(1700000000+int64(i), 0).UTC().Format(time.RFC3339), r.IntN(500), r.IntN(40), r.IntN(5) > 0, r.IntN(3000),
			base64.StdEncoding.EncodeToString(sig))
	}
	return b.Bytes()[:size]
}

// source is Go's own source, of which there is plenty wherever a test runs.
var source = func() func(size int) []byte {
	all := sync.OnceValue(func() []byte {
		var b bytes.Buffer
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			panic(err)
		}
		err = filepath.WalkDir(filepath.Join(strings.TrimSpace(string(root)), "src"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || b.Len() > 16<<20 {
				return err
			}
			p, err := os.ReadFile(path)
			b.Write(p)
			return err
		})
		if err != nil {
			panic(err)
		}
		return b.Bytes()
	})
	return func(size int) []byte { return all()[:size] }
}()

var inputs = []struct {
	name string
	make func(size int) []byte
}{
	{"source", source},
	{"json", jsonLines},
	{"base64", base64Text},
	{"zeros", func(size int) []byte { return make([]byte, size) }},
	{"random", random},
}

var levels = []Level{Default, Fast, Best}

func newSealer(t testing.TB, o SealOptions) *Sealer {
	t.Helper()
	s, err := NewSealer(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newOpener(t testing.TB) *Opener {
	t.Helper()
	o, err := NewOpener()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o
}
