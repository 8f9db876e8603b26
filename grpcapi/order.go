package grpcapi

import (
	"fmt"
	"strings"

	"github.com/koii-network/scale/dag"
)

// A treeOrder checks the entries of a tree as they come: paths, order, numbers. It says
// which directories were left out.
type treeOrder struct {
	lim     *Limits
	entries uint64
	last    string // path of the last entry
	key     string // what it is ordered by: a directory's path ends in "/"
	open    string // the directory that the last entry is in, or is: "" or with "/" at its end
	// files are entries that later ones could want as directories: each begins with the one
	// before, and the last key begins with all of them.
	files []string
}

// add takes the next entry. missing are the directories above it that were not sent.
func (t *treeOrder) add(path string, kind dag.Kind) (missing []string, err error) {
	if path == "" {
		if t.entries > 0 {
			return nil, invalidf("path", "the root comes first, and once")
		}
		if kind != dag.KindDir {
			return nil, invalidf("path", "the root of a tree is a directory")
		}
		t.entries++
		return nil, nil
	}
	if err := t.checkPath(path); err != nil {
		return nil, err
	}
	key := path
	if kind == dag.KindDir {
		key += "/"
	}
	if key <= t.key {
		switch {
		case path == t.last:
			return nil, invalidf("path", "%q comes twice", path)
		case strings.HasPrefix(t.key, key):
			return nil, invalidf("path", "%q comes after %q: a directory comes before what is in it", path, t.last)
		}
		return nil, invalidf("path", "%q comes after %q: entries come in bytewise order of their paths, a directory's with a \"/\" at its end", path, t.last)
	}
	for len(t.files) > 0 && !strings.HasPrefix(key, t.files[len(t.files)-1]) {
		t.files = t.files[:len(t.files)-1]
	}
	for _, f := range t.files {
		if path == f {
			return nil, invalidf("path", "%q comes twice", path)
		}
		if key[len(f)] == '/' {
			return nil, invalidf("path", "%q comes after %q, which is no directory", path, f)
		}
	}
	missing = t.descend(path)
	if kind == dag.KindDir {
		t.open = key
	} else {
		t.files = append(t.files, path)
	}
	t.last, t.key = path, key
	t.entries += 1 + uint64(len(missing))
	if t.entries > t.lim.TreeEntries {
		return nil, fmt.Errorf("%w: more than %d entries in a tree", ErrLimit, t.lim.TreeEntries)
	}
	return missing, nil
}

// descend opens the directory that a path is in, and returns those on the way to it that
// were not open.
func (t *treeOrder) descend(path string) (missing []string) {
	for !strings.HasPrefix(path, t.open) {
		t.open = t.open[:strings.LastIndexByte(t.open[:len(t.open)-1], '/')+1]
	}
	for {
		n := strings.IndexByte(path[len(t.open):], '/')
		if n < 0 {
			return missing
		}
		missing = append(missing, path[:len(t.open)+n])
		t.open = path[:len(t.open)+n+1]
	}
}

func (t *treeOrder) checkPath(path string) error {
	if len(path) > t.lim.PathBytes {
		return invalidf("path", "%d bytes, must be at most %d", len(path), t.lim.PathBytes)
	}
	depth := 0
	for name := range strings.SplitSeq(path, "/") {
		switch {
		case name == "", name == ".", name == "..":
			return invalidf("path", "%q has the component %q", path, name)
		case len(name) > t.lim.NameBytes:
			return invalidf("path", "a component of %d bytes, must be at most %d", len(name), t.lim.NameBytes)
		case strings.IndexByte(name, 0) >= 0:
			return invalidf("path", "%q has a NUL", path)
		}
		depth++
	}
	if depth > t.lim.TreeDepth {
		return fmt.Errorf("%w: %d levels of directories, must be at most %d", ErrLimit, depth, t.lim.TreeDepth)
	}
	return nil
}
