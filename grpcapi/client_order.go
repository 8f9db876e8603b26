package grpcapi

import (
	"errors"
	"fmt"
	"strings"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store"
)

// A receivedOrder checks that entries come as a tree has them: the root first, then in
// canonical order, each in a directory that came before, with paths that are paths. It
// also counts them, so that no more come than the dataset has.
type receivedOrder struct {
	root  store.Object
	begun bool
	key   string // of the last entry: its path, with "/" behind a directory's
	open  string // the directories that the next entry may be in are prefixes of it
	left  uint64 // leaves that may still come
	size  uint64 // bytes that may still come
}

// newReceivedOrder begins a tree that is o or below it. What o says of its dataset bounds it.
func newReceivedOrder(o store.Object) *receivedOrder {
	return &receivedOrder{root: o, left: o.Dataset.Leaves, size: o.Dataset.Size}
}

// next checks one entry more.
func (t *receivedOrder) next(e store.Entry) error {
	if err := t.check(e); err != nil {
		return nodeErrorf("entry %.300q of %s: %w", e.Path, t.root, err)
	}
	return nil
}

func (t *receivedOrder) check(e store.Entry) error {
	if !t.begun {
		t.begun = true
		if e.Path != "" || e.CID != t.root.CID || e.Info.Kind != t.root.Info.Kind {
			return errors.New("it is not what was asked for")
		}
		return t.count(e)
	}
	if t.root.Info.Kind != dag.KindDir {
		return fmt.Errorf("it is below a %v", t.root.Info.Kind)
	}
	if err := checkTreePath(e.Path); err != nil {
		return err
	}
	key := e.Path
	if e.Info.Kind == dag.KindDir {
		key += "/"
	}
	if key <= t.key {
		return dag.ErrOrder
	}
	if dir := e.Path[:strings.LastIndexByte(e.Path, '/')+1]; !strings.HasPrefix(t.open, dir) {
		return fmt.Errorf("its directory did not come before it: %w", dag.ErrOrder)
	}
	// A directory counts as a leaf, which it is if empty, until something is in it.
	if t.key == "" || strings.HasSuffix(t.key, "/") && strings.HasPrefix(key, t.key) {
		t.left++
	}
	t.key, t.open = key, key
	return t.count(e)
}

func (t *receivedOrder) count(e store.Entry) error {
	if t.left == 0 {
		return fmt.Errorf("more entries came than the dataset has, %d leaves", t.root.Dataset.Leaves)
	}
	t.left--
	if e.Info.Kind != dag.KindFile {
		return nil
	}
	if e.Info.Size > t.size {
		return fmt.Errorf("with %d bytes more came than the dataset has, %d", e.Info.Size, t.root.Dataset.Size)
	}
	t.size -= e.Info.Size
	return nil
}

// end checks that a tree which was begun at its root is complete.
func (t *receivedOrder) end() error {
	if !t.begun {
		return nodeErrorf("%s: nothing came", t.root)
	}
	if t.root.Path == "" && (t.left != 0 || t.size != 0) {
		return nodeErrorf("%s: %d leaves and %d bytes did not come", t.root, t.left, t.size)
	}
	return nil
}

// checkTreePath checks a path of anything but the root.
func checkTreePath(path string) error {
	if len(path) > dag.MaxPath {
		return fmt.Errorf("%d bytes: %w", len(path), dag.ErrPath)
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." || len(name) > dag.MaxName || strings.IndexByte(name, 0) >= 0 {
			return dag.ErrPath
		}
	}
	return nil
}
