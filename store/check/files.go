package check

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/dag/ledger"
)

// checkConfig reads scale.json, without which no signature can be checked. It
// returns an error only for a format that is not known.
func (c *checker) checkConfig() error {
	path := filepath.Join(c.dir, "scale.json")
	bad := func(f string, args ...any) error {
		c.errorf("scale.json", "bring the file back from a backup; without it signatures, ledger and datasets cannot be checked",
			"%s: %s", path, fmt.Sprintf(f, args...))
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return bad("%v", err)
	}
	var conf struct {
		Format int
		Origin string
		VKey   string
	}
	if err := json.Unmarshal(b, &conf); err != nil {
		return bad("%v", err)
	}
	if conf.Format < formatPlain || conf.Format > formatPacked {
		return fmt.Errorf("%w %d, this build reads %d to %d", ErrFormat, conf.Format, formatPlain, formatPacked)
	}
	c.format = conf.Format
	v, err := note.NewVerifier(conf.VKey)
	if err != nil {
		return bad("the log's public key: %v", err)
	}
	if v.Name() != conf.Origin {
		return bad("origin %q and public key %q are not of one log", conf.Origin, v.Name())
	}
	c.verifier = v
	return nil
}

func (c *checker) logID() ledger.LogID {
	return ledger.LogID{Origin: c.verifier.Name(), KeyID: c.verifier.KeyHash()}
}

// checkKeys looks at the private keys. Nothing of them is ever reported.
func (c *checker) checkKeys() {
	missing := Error
	if c.rows.restored > 0 && !c.rows.resumed {
		missing = Note // it comes with scale log resume
	}
	if b, ok := c.readKey("log.key", missing); ok {
		s, err := note.NewSigner(strings.TrimSpace(string(b)))
		switch {
		case err != nil:
			c.errorf("keys", doKey, "keys/log.key is not a log's private key")
		case s.Name() != c.verifier.Name() || s.KeyHash() != c.verifier.KeyHash():
			c.errorf("keys", doKey, "keys/log.key is the key of log %s+%08x, not of this one", s.Name(), s.KeyHash())
		case !signs(s, c.verifier):
			c.errorf("keys", doKey, "keys/log.key does not sign for the public key in scale.json")
		}
	}
	if b, ok := c.readKey("curator.json", min(missing, Warning)); ok {
		key, err := parseCurator(b)
		if err != nil {
			c.errorf("keys", doKey, "keys/curator.json: %v", err)
		} else if c.policy != nil && !slices.Contains(c.policy.Curators, key) {
			c.warnf("keys", "put with --curator-key and a key that the policy names",
				"the curator %v of keys/curator.json is not admitted by the ledger's policy", key)
		}
	}
}

const doKey = "bring it back from a backup; reading goes on without it, putting does not"

func (c *checker) readKey(name string, missing Severity) ([]byte, bool) {
	path := filepath.Join(c.dir, "keys", name)
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		c.report("keys", Finding{Severity: missing, What: "keys/" + name + " is missing", Do: doKey})
		return nil, false
	}
	if err == nil && (!fi.Mode().IsRegular() || fi.Size() > 1<<16) {
		err = errors.New("it is not a key file")
	}
	if err != nil {
		c.errorf("keys", doKey, "keys/%s: %v", name, err)
		return nil, false
	}
	if perm := fi.Mode().Perm(); perm&0o077 != 0 {
		c.errorf("keys", fmt.Sprintf("if nobody has read it, run: chmod 600 %s", path), "keys/%s can be read by others (mode %04o)", name, perm)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		c.errorf("keys", doKey, "keys/%s: %v", name, err)
	}
	return b, err == nil
}

func signs(s note.Signer, v note.Verifier) bool {
	msg := []byte("scale check\n")
	sig, err := s.Sign(msg)
	return err == nil && v.Verify(msg, sig)
}

// parseCurator returns the public half of a key as koii-keygen writes it.
func parseCurator(b []byte) (k ledger.CuratorKey, err error) {
	var raw []uint16 // []byte would be base64
	if err := json.Unmarshal(b, &raw); err != nil || len(raw) != ed25519.PrivateKeySize {
		return k, fmt.Errorf("not a JSON array of %d bytes as koii-keygen writes it", ed25519.PrivateKeySize)
	}
	key := make([]byte, len(raw))
	for i, v := range raw {
		if v > 255 {
			return k, errors.New("an element is not a byte")
		}
		key[i] = byte(v)
	}
	if !slices.Equal(ed25519.NewKeyFromSeed(key[:ed25519.SeedSize]), ed25519.PrivateKey(key)) {
		return k, errors.New("its public half does not belong to its seed")
	}
	return ledger.CuratorKey(key[ed25519.SeedSize:]), nil
}

const doMark = "do not put into this store: it opens for reading only, because a loss of entries would go unseen. " + doBackup

// checkHighWater reads the mark that is kept outside of Badger.
func (c *checker) checkHighWater() {
	var b []byte
	if c.opt.Live != nil {
		if b = c.opt.Live.HighWater; b == nil {
			c.errorf("highwater", doMark, "the high-water mark cannot be read")
			return
		}
	} else {
		var err error
		if b, err = os.ReadFile(filepath.Join(c.dir, "highwater")); err != nil {
			c.errorf("highwater", doMark, "the high-water mark cannot be read: %v", err)
			return
		}
	}
	mark, err := ledger.OpenCheckpoint(b, c.verifier)
	if err != nil {
		c.errorf("highwater", doMark, "the high-water mark is damaged: %v", err)
		return
	}
	c.mark = &mark
}
