package grpcapi

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/filecache"
)

// rescanTree makes a tree that is worth a cache.
func rescanTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	err := os.WriteFile(filepath.Join(root, "large"), noiseBytes(1, 3<<20), 0o644)
	for i := range 200 {
		err = errors.Join(err, os.WriteFile(filepath.Join(root, fmt.Sprintf("%03d", i)), noiseBytes(uint64(2+i), 100*i), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// dialRemembering connects with a cache of files, by whose clock all of them have settled.
func (n *clientNode) dialRemembering(caches string) *Client {
	n.t.Helper()
	c, err := Dial(n.t.Context(), n.addr, DialOptions{TempDir: n.t.TempDir(), FileCache: filecache.Dir{
		Path: caches, Now: func() time.Time { return time.Now().Add(time.Hour) },
	}})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	return c
}

// A client that remembers files does not read again those that did not change, whether
// the node has the dataset, its chunks, some of them or nothing.
func TestClientRescan(t *testing.T) {
	n, other := startClientNode(t), startClientNode(t)
	root, caches := rescanTree(t), filepath.Join(t.TempDir(), "caches")
	put := func(c *Client, in store.Input) store.PutResult {
		t.Helper()
		in.Path = root
		var last store.Progress
		res := must(c.Put(t.Context(), []store.Input{in}, store.PutOptions{Progress: func(p store.Progress) { last = p }}))[0]
		if last.Unread != res.Unread {
			t.Errorf("progress says that %d bytes were not read, the result %d", last.Unread, res.Unread)
		}
		return res
	}
	c := n.dialRemembering(caches)
	first := put(c, store.Input{Name: "tree"})
	if first.Unread != 0 {
		t.Errorf("%+v", first)
	}
	if res := put(c, store.Input{Name: "tree"}); !res.Unchanged || res.CID != first.CID || res.Unread != first.Size {
		t.Errorf("the same again: %+v", res)
	}
	if res := put(n.dialRemembering(caches), store.Input{Name: "new"}); res.CID != first.CID || res.Unread != first.Size || res.NewBytes != 0 {
		t.Errorf("under another name: %+v", res)
	}
	if res := put(c, store.Input{Name: "tree", Rescan: true}); !res.Unchanged || res.Unread != 0 {
		t.Errorf("rescan: %+v", res)
	}
	if res := put(n.dial(n.addr), store.Input{Name: "tree"}); !res.Unchanged || res.Unread != 0 {
		t.Errorf("without a cache: %+v", res)
	}

	// A change is found, and the rest is not read for it.
	if err := os.WriteFile(filepath.Join(root, "more"), noiseBytes(999, 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	second := put(c, store.Input{Name: "tree"})
	if second.Unchanged || second.CID == first.CID || second.Unread != first.Size || second.NewBytes != 1000 {
		t.Errorf("one file more: %+v", second)
	}

	// A node that has nothing of it gets it all; one that has a part gets the rest.
	o := other.dialRemembering(caches)
	data := must(os.ReadFile(filepath.Join(root, "large")))
	must(o.Put(t.Context(), []store.Input{putFile(t, "large", data)}, store.PutOptions{}))
	if res := put(o, store.Input{Name: "tree"}); res.CID != second.CID || res.Unread != uint64(len(data)) || res.NewBytes != second.Size-uint64(len(data)) {
		t.Errorf("another node: %+v", res)
	}
	if res := put(o, store.Input{Name: "tree"}); !res.Unchanged || res.Unread != second.Size {
		t.Errorf("another node, again: %+v", res)
	}
	n.sound()
	other.sound()
}
