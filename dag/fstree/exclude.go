package fstree

import (
	"fmt"
	"path"
	"strings"
)

// A pattern is one entry of Options.Exclude, taken apart.
type pattern struct {
	parts   []string // globs of path elements; one part only: of the name
	anyPath bool     // matches the name, wherever it is
	onlyDir bool
}

func compilePatterns(globs []string) ([]pattern, error) {
	var all []pattern
	for _, g := range globs {
		var p pattern
		s, found := strings.CutSuffix(g, "/")
		p.onlyDir = found
		p.anyPath = !strings.Contains(s, "/")
		p.parts = strings.Split(strings.TrimPrefix(s, "/"), "/")
		for _, part := range p.parts {
			if part == "" {
				return nil, fmt.Errorf("exclude pattern %q: empty path element: %w", g, path.ErrBadPattern)
			}
			if _, err := path.Match(part, ""); err != nil {
				return nil, fmt.Errorf("exclude pattern %q: %w", g, err)
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// excluded reports whether a pattern matches the entry. name is the last
// element of its path.
func (t *Tree) excluded(entry, name string, dir bool) bool {
	for _, p := range t.exclude {
		switch {
		case p.onlyDir && !dir:
		case p.anyPath:
			if matchParts(p.parts, name) {
				return true
			}
		case matchParts(p.parts, entry):
			return true
		}
	}
	return false
}

// matchParts matches a whole path, element by element; "**" stands for any
// number of elements. Its time is the product of the two lengths, whatever
// the pattern.
func matchParts(parts []string, entry string) bool {
	at := make([]bool, len(parts)+1) // at[i]: parts[:i] matches what was looked at
	at[0] = true
	passStars := func() {
		for i, part := range parts {
			if part == "**" && at[i] {
				at[i+1] = true
			}
		}
	}
	passStars()
	for name := range strings.SplitSeq(entry, "/") {
		for i := len(parts); i >= 0; i-- {
			stays := i < len(parts) && parts[i] == "**" && at[i]
			at[i] = stays || i > 0 && at[i-1] && matchPart(parts[i-1], name)
		}
		passStars()
	}
	return at[len(parts)]
}

func matchPart(part, name string) bool {
	ok, _ := path.Match(part, name) // the syntax was checked
	return ok && part != "**"
}
