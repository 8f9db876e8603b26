package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"fmt"
	"sync"

	"filippo.io/edwards25519"
)

// A SignatureChecker does what [Entry.CheckSignature] does, with the same verdicts, for
// many entries of one log by few curators: of a key that comes often it keeps multiples,
// so that the rest take half the time or less. It is safe for concurrent use.
type SignatureChecker struct {
	id LogID

	mu     sync.Mutex
	keys   map[CuratorKey]*oftenKey
	tables int // begun
}

// An oftenKey is one that has come so often.
type oftenKey struct {
	count int       // guarded by the checker's mu
	table *keyTable // the same; nil if there is none, or none yet
}

// Bounds of a SignatureChecker: 15 MB. Keys beyond them are checked as any other.
const (
	maxOften  = 4096
	maxTables = 64
	// A table takes as long to make as it saves with so many checks, or a little less.
	tableAfter = 16
)

// NewSignatureChecker returns a checker for the entries of a log.
func NewSignatureChecker(id LogID) *SignatureChecker {
	return &SignatureChecker{id: id, keys: map[CuratorKey]*oftenKey{}}
}

// Check returns ErrSignature unless e.Curator signed the entry for the log.
func (c *SignatureChecker) Check(e *Entry) error {
	t := c.table(e.Curator)
	if t == nil {
		return e.CheckSignature(c.id)
	}
	msg, err := e.signed(c.id)
	if err != nil {
		return err
	}
	if !t.verify(msg, e.Signature[:]) {
		return fmt.Errorf("%w: curator %v did not sign this entry for log %v", ErrSignature, e.Curator, c.id)
	}
	return nil
}

// table returns the table of a key, nil if it has none. A key under which nothing counts
// never has one, so that CheckSignature refuses it.
func (c *SignatureChecker) table(key CuratorKey) *keyTable {
	if key.checkWeak() != nil {
		return nil
	}
	c.mu.Lock()
	k := c.keys[key]
	if k == nil {
		if len(c.keys) == maxOften {
			c.mu.Unlock()
			return nil
		}
		k = new(oftenKey)
		c.keys[key] = k
	}
	k.count++
	t, due := k.table, k.count == tableAfter && c.tables < maxTables
	if due {
		c.tables++
	}
	c.mu.Unlock()
	if due { // others do without it meanwhile
		t = newKeyTable(key[:])
		c.mu.Lock()
		k.table = t
		c.mu.Unlock()
	}
	return t
}

// A keyTable verifies signatures by one Ed25519 key. The equation is that of
// crypto/ed25519, [S]B - [k]A = R with R compared as bytes and no cofactor, and so are
// its reading of keys and scalars; only the products are taken out of tables, where it
// doubles 256 times. All of it is public, so the time may depend on it.
type keyTable struct {
	key    []byte
	minusA *multiples
}

// newKeyTable returns nil for a key that no signature is valid by.
func newKeyTable(key []byte) *keyTable {
	a, err := new(edwards25519.Point).SetBytes(key)
	if err != nil {
		return nil
	}
	return &keyTable{key: bytes.Clone(key), minusA: newMultiples(new(edwards25519.Point).Negate(a))}
}

func (t *keyTable) verify(msg, sig []byte) bool {
	if len(sig) != ed25519.SignatureSize {
		return false
	}
	s, err := new(edwards25519.Scalar).SetCanonicalBytes(sig[32:])
	if err != nil {
		return false
	}
	k, err := new(edwards25519.Scalar).SetUniformBytes(challenge(sig[:32], t.key, msg))
	if err != nil {
		return false // never: it takes any 64 bytes
	}
	r := edwards25519.NewIdentityPoint()
	t.minusA.addProduct(r, k)
	baseMultiples().addProduct(r, s)
	return bytes.Equal(r.Bytes(), sig[:32])
}

// challenge returns the digest that k is made of.
func challenge(r, key, msg []byte) []byte {
	h := sha512.New()
	h.Write(r)
	h.Write(key)
	h.Write(msg)
	return h.Sum(nil)
}

// Scalars are read in windows of so many bits, as digits from -2^(windowBits-1) up to
// 2^(windowBits-1). Measured per signature: 5 bits 26 µs, 6 bits 22, 8 bits 19; every bit
// makes the table some 1.7 times as large and as long in the making. crypto/ed25519: 53.
const (
	windowBits = 6
	windows    = 256/windowBits + 1
	digits     = 1 << (windowBits - 1)
)

// multiples are those of a point that its products with scalars are sums of: in row i,
// 1 to digits times 2^(windowBits*i) times the point. 220 kB.
type multiples [windows][digits]edwards25519.Point

func newMultiples(p *edwards25519.Point) *multiples {
	m := new(multiples)
	unit := new(edwards25519.Point).Set(p)
	for i := range m {
		m[i][0].Set(unit)
		for j := 1; j < digits; j++ {
			m[i][j].Add(&m[i][j-1], unit)
		}
		unit.Add(&m[i][digits-1], &m[i][digits-1])
	}
	return m
}

var baseMultiples = sync.OnceValue(func() *multiples { return newMultiples(edwards25519.NewGeneratorPoint()) })

// addProduct adds the product with s to sum. The scalar is that number itself, below
// the order of the base point, also for a point of another order.
func (m *multiples) addProduct(sum *edwards25519.Point, s *edwards25519.Scalar) {
	var b [34]byte // with room to read behind the end
	copy(b[:], s.Bytes())
	carry := 0
	for i := range m {
		at := i * windowBits
		word := int(b[at/8]) | int(b[at/8+1])<<8
		d := word>>(at%8)&(1<<windowBits-1) + carry
		carry = 0
		if d > digits {
			d -= 1 << windowBits
			carry = 1
		}
		switch {
		case d > 0:
			sum.Add(sum, &m[i][d-1])
		case d < 0:
			sum.Subtract(sum, &m[i][-d-1])
		}
	}
}
