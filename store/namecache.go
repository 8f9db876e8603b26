package store

import "sync"

// A nameCache keeps the newest entries of names that were put under lately, for those
// that are put under again and again. Only commits that went all the way change it, and
// these it never misses: what it holds is what the rows say.
type nameCache struct {
	mu     sync.Mutex
	byName map[string]*nameEntry
}

// maxNames bounds a nameCache: some 4 MB.
const maxNames = 4096

// get returns the newest entry of a name in the ledger of that size; nil if it is not
// known here.
func (c *nameCache) get(name string, size int64) *nameEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.byName[name]; n != nil && n.index < size {
		return n
	}
	return nil
}

func (c *nameCache) put(n *nameEntry) {
	if n == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byName == nil {
		c.byName = make(map[string]*nameEntry)
	}
	if _, ok := c.byName[n.name]; !ok && len(c.byName) >= maxNames {
		for other := range c.byName { // any one
			delete(c.byName, other)
			break
		}
	}
	c.byName[n.name] = n
}
