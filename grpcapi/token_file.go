package grpcapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

const (
	tokensFormat  = 1
	maxTokens     = 1000
	maxTokensFile = 1 << 20
)

var _ TokenStore = (*TokenFile)(nil)

// A TokenFile holds the tokens of a store: a file in its directory, and in memory. It is
// for the process that owns the store, the only one that writes the file. It is safe for
// concurrent use.
type TokenFile struct {
	path string
	now  func() time.Time

	mu     sync.Mutex
	err    error                   // why the file cannot be believed
	byID   map[string]*tokenRecord // guarded by mu, as is byName
	byName map[string]*tokenRecord
}

// A tokenRecord is a token in memory. void ends, with ErrToken as its cause, when the token
// expires or is revoked.
type tokenRecord struct {
	Token
	id   string
	hash tokenHash
	void context.Context
	end  context.CancelCauseFunc
	stop context.CancelFunc // of the timer of its expiry
}

// OpenTokens reads the tokens of the store in dir, which the caller owns. No file means no
// tokens. A file that cannot be read or believed is told by Err, and no token is accepted
// until it has been put right and is opened again.
func OpenTokens(dir string) *TokenFile {
	return openTokens(filepath.Join(dir, store.TokensFile), time.Now)
}

func openTokens(path string, now func() time.Time) *TokenFile {
	f := &TokenFile{path: path, now: now, byID: map[string]*tokenRecord{}, byName: map[string]*tokenRecord{}}
	records, err := readTokens(path)
	if err != nil {
		f.err = fmt.Errorf("tokens: %s: %w; no token is accepted: restore the file, or remove it and make new tokens", path, err)
	}
	for _, r := range records {
		f.admit(r)
	}
	return f
}

// Err returns why the file of the tokens cannot be believed, or nil.
func (f *TokenFile) Err() error { return f.err }

// Close releases timers; tokens are no longer accepted.
func (f *TokenFile) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.byID {
		f.drop(r, fmt.Errorf("%w: the node closes", ErrToken))
	}
}

func (f *TokenFile) admit(r *tokenRecord) {
	ctx, end := context.WithCancelCause(context.Background())
	r.end, r.stop, r.void = end, func() {}, ctx
	if !r.Expires.IsZero() {
		r.void, r.stop = context.WithDeadlineCause(ctx, r.Expires, expired(r.Expires))
	}
	f.byID[r.id], f.byName[r.Name] = r, r
}

func (f *TokenFile) drop(r *tokenRecord, why error) {
	delete(f.byID, r.id)
	r.end(why)
	r.stop()
}

func expired(at time.Time) error {
	return fmt.Errorf("%w: it expired at %s", ErrToken, at.UTC().Format(time.RFC3339))
}

// Create makes a token and returns its text, which is kept nowhere. It is durable when
// Create returns. A name that is taken is store.ErrExists.
func (f *TokenFile) Create(name string, scope scalev1.Scope, expires time.Time) (Token, string, error) {
	now := f.now()
	t := Token{Name: name, Scope: scope, Created: now.UTC().Truncate(time.Second)}
	if err := CheckTokenName(name); err != nil {
		return Token{}, "", fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if scopeNames[scope] == "" {
		return Token{}, "", fmt.Errorf("%w: a token needs a scope: read, write or admin", store.ErrInvalid)
	}
	if !expires.IsZero() {
		t.Expires = expires.UTC().Truncate(time.Second)
		if !t.Expires.After(now) {
			return Token{}, "", fmt.Errorf("%w: the token would have expired at %s", store.ErrInvalid, t.Expires.Format(time.RFC3339))
		}
		if t.Expires.Year() > 9999 { // beyond RFC 3339
			return Token{}, "", fmt.Errorf("%w: a token cannot expire after the year 9999; leave the time out", store.ErrInvalid)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return Token{}, "", f.err
	}
	if f.byName[name] != nil {
		return Token{}, "", fmt.Errorf("token %s %w; revoke it first, or choose another name", name, store.ErrExists)
	}
	if len(f.byID) >= maxTokens {
		return Token{}, "", fmt.Errorf("%w: a store has at most %d tokens; revoke some", store.ErrInvalid, maxTokens)
	}
	text, id := newSecret()
	for f.byID[id] != nil {
		text, id = newSecret()
	}
	r := &tokenRecord{Token: t, id: id, hash: hashToken(text)}
	if err := f.write(append(f.sorted(), r)); err != nil {
		return Token{}, "", fmt.Errorf("create token %s: %w", name, err)
	}
	f.admit(r)
	return t, text, nil
}

// List returns the tokens by name, those that have expired included.
func (f *TokenFile) List() ([]Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	var list []Token
	for _, r := range f.sorted() {
		list = append(list, r.Token)
	}
	return list, nil
}

// Revoke makes a token void, at once and durably: calls that begin later are refused, and
// streams under way are ended. No token of the name is store.ErrNotFound.
func (f *TokenFile) Revoke(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	r := f.byName[name]
	if r == nil {
		return fmt.Errorf("token %s: %w", name, store.ErrNotFound)
	}
	// Void in memory even if the disk refuses; the name stays, so that it can be tried again.
	f.drop(r, fmt.Errorf("%w: it was revoked", ErrToken))
	if err := f.write(f.sorted()); err != nil {
		return fmt.Errorf("revoke token %s: it is void until this process ends, but that is not recorded; revoke it again: %w", name, err)
	}
	delete(f.byName, name)
	return nil
}

// Check returns the token of that text, and a context that ends, with ErrToken as its
// cause, when the token expires or is revoked. The error wraps ErrToken and does not repeat
// the text.
func (f *TokenFile) Check(text string) (Token, context.Context, error) {
	id, err := parseToken(text)
	if err != nil {
		return Token{}, nil, err
	}
	hash := hashToken(text)
	f.mu.Lock()
	r := f.byID[id]
	broken := f.err != nil
	f.mu.Unlock()
	if broken {
		return Token{}, nil, fmt.Errorf("%w: the node cannot read its tokens; its log says why", ErrToken)
	}
	if r == nil || subtle.ConstantTimeCompare(hash[:], r.hash[:]) != 1 {
		return Token{}, nil, fmt.Errorf("%w: it is unknown or was revoked", ErrToken)
	}
	if !r.Expires.IsZero() && !f.now().Before(r.Expires) {
		return Token{}, nil, expired(r.Expires)
	}
	return r.Token, r.void, nil
}

// Usable returns how many tokens are in force.
func (f *TokenFile) Usable() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.byID {
		if r.Expires.IsZero() || f.now().Before(r.Expires) {
			n++
		}
	}
	return n
}

func (f *TokenFile) sorted() []*tokenRecord {
	list := make([]*tokenRecord, 0, len(f.byID))
	for _, r := range f.byID {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *tokenRecord) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// The file: see store/FORMAT.md.
type (
	tokensJSON struct {
		Format int         `json:"format"`
		Tokens []tokenJSON `json:"tokens"`
		Sum    string      `json:"sum"`
	}
	tokenJSON struct {
		Name    string `json:"name"`
		ID      string `json:"id"`
		Scope   string `json:"scope"`
		Created string `json:"created"`
		Expires string `json:"expires,omitempty"`
		SHA256  string `json:"sha256"`
	}
)

// formatTokens renders the file; records come by name.
func formatTokens(records []*tokenRecord) ([]byte, error) {
	v := tokensJSON{Format: tokensFormat, Tokens: []tokenJSON{}}
	for _, r := range records {
		t := tokenJSON{
			Name: r.Name, ID: r.id, Scope: scopeNames[r.Scope],
			Created: r.Created.Format(time.RFC3339), SHA256: hex.EncodeToString(r.hash[:]),
		}
		if !r.Expires.IsZero() {
			t.Expires = r.Expires.Format(time.RFC3339)
		}
		v.Tokens = append(v.Tokens, t)
	}
	b, err := json.Marshal(v.Tokens)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	v.Sum = hex.EncodeToString(sum[:])
	if b, err = json.MarshalIndent(v, "", "  "); err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// parseTokens accepts exactly what formatTokens renders.
func parseTokens(b []byte) ([]*tokenRecord, error) {
	var v tokensJSON
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("%w (%v)", store.ErrCorrupt, err)
	}
	if v.Format > tokensFormat {
		return nil, fmt.Errorf("format %d, this build reads %d: %w; use a newer scale", v.Format, tokensFormat, store.ErrFormat)
	}
	if len(v.Tokens) > maxTokens {
		return nil, fmt.Errorf("%d tokens, at most %d are allowed: %w", len(v.Tokens), maxTokens, store.ErrCorrupt)
	}
	var records []*tokenRecord
	ids := map[string]bool{}
	for i, t := range v.Tokens {
		r, err := t.record()
		if err == nil && (i > 0 && v.Tokens[i-1].Name >= t.Name || ids[t.ID]) {
			err = errors.New("out of order, or there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("token %d: %w (%v)", i, store.ErrCorrupt, err)
		}
		ids[t.ID] = true
		records = append(records, r)
	}
	again, err := formatTokens(records)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: it was changed by something else than scale", store.ErrCorrupt)
	}
	return records, nil
}

func (t tokenJSON) record() (*tokenRecord, error) {
	if err := errors.Join(CheckTokenName(t.Name), checkTokenID(t.ID)); err != nil {
		return nil, err
	}
	r := &tokenRecord{Token: Token{Name: t.Name}, id: t.ID}
	var err error
	if r.Scope, err = ParseScope(t.Scope); err != nil {
		return nil, err
	}
	if r.hash, err = parseTokenHash(t.SHA256); err != nil {
		return nil, err
	}
	if r.Created, err = time.Parse(time.RFC3339, t.Created); err != nil {
		return nil, err
	}
	if t.Expires != "" {
		if r.Expires, err = time.Parse(time.RFC3339, t.Expires); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func readTokens(path string) ([]*tokenRecord, error) {
	// Neither a link nor a pipe is opened: a store may come from a stranger.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxTokensFile {
		return nil, fmt.Errorf("not a file of tokens: %w", store.ErrCorrupt)
	}
	if perm := fi.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("others may use it (mode %04o): %w; if nobody has, run: chmod 600 %s", perm, store.ErrKeys, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxTokensFile+1))
	if err != nil {
		return nil, err
	}
	return parseTokens(b)
}

// write replaces the file; after a crash there is either the old one or the new.
func (f *TokenFile) write(records []*tokenRecord) error {
	slices.SortFunc(records, func(a, b *tokenRecord) int { return strings.Compare(a.Name, b.Name) })
	b, err := formatTokens(records)
	if err != nil {
		return err
	}
	return store.ReplaceFile(f.path, b)
}
