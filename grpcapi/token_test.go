package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

var tokenTime = time.Date(2027, 3, 4, 5, 6, 7, 0, time.UTC)

// tokenClock is a clock that tests move.
type tokenClock struct{ t time.Time }

func (c *tokenClock) now() time.Time { return c.t }

func newTokens(t *testing.T, dir string, c *tokenClock) *TokenFile {
	t.Helper()
	f := openTokens(filepath.Join(dir, store.TokensFile), c.now)
	t.Cleanup(f.Close)
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	return f
}

func mustCreate(t *testing.T, f *TokenFile, name string, scope scalev1.Scope, expires time.Time) string {
	t.Helper()
	_, text, err := f.Create(name, scope, expires)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTokens(t *testing.T) {
	dir, clock := t.TempDir(), &tokenClock{tokenTime}
	f := newTokens(t, dir, clock)
	if list, err := f.List(); len(list) != 0 || err != nil {
		t.Errorf("a new store has %v, %v", list, err)
	}
	if _, err := os.Stat(f.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("looking made a file: %v", err)
	}
	year := 365 * 24 * time.Hour
	reader := mustCreate(t, f, "reader", scalev1.Scope_SCOPE_READ, time.Time{})
	writer := mustCreate(t, f, "b.writer_2-", scalev1.Scope_SCOPE_WRITE, tokenTime.Add(10*year))
	admin := mustCreate(t, f, "Admin", scalev1.Scope_SCOPE_ADMIN, tokenTime.Add(20*year))
	want := []Token{
		{"Admin", scalev1.Scope_SCOPE_ADMIN, tokenTime, tokenTime.Add(20 * year)},
		{"b.writer_2-", scalev1.Scope_SCOPE_WRITE, tokenTime, tokenTime.Add(10 * year)},
		{"reader", scalev1.Scope_SCOPE_READ, tokenTime, time.Time{}},
	}
	check := func(f *TokenFile) {
		t.Helper()
		list, err := f.List()
		if diff := cmp.Diff(want, list); diff != "" || err != nil {
			t.Errorf("list: %v\n%s", err, diff)
		}
		if n := f.Usable(); n != 3 {
			t.Errorf("%d usable", n)
		}
		for i, text := range []string{admin, writer, reader} {
			got, void, err := f.Check(text)
			if err != nil || got != want[i] || void.Err() != nil {
				t.Errorf("token %d: %v, %v, %v", i, got, void, err)
			}
		}
	}
	check(f)
	check(newTokens(t, dir, clock))

	b, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{admin, writer, reader} {
		if secret := strings.Split(text, "_")[2]; strings.Contains(string(b), secret) {
			t.Error("the file has a secret")
		}
	}
	if fi, err := os.Stat(f.path); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}

	// Expiry counts to the instant.
	clock.t = tokenTime.Add(10*year - 1)
	if _, _, err := f.Check(writer); err != nil {
		t.Error(err)
	}
	clock.t = clock.t.Add(1)
	if _, _, err := f.Check(writer); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired token: %v", err)
	}
	if n := f.Usable(); n != 2 {
		t.Errorf("%d usable", n)
	}
}

func TestTokenRevoked(t *testing.T) {
	dir, clock := t.TempDir(), &tokenClock{tokenTime}
	f := newTokens(t, dir, clock)
	text := mustCreate(t, f, "ci", scalev1.Scope_SCOPE_WRITE, time.Time{})
	other := mustCreate(t, f, "other", scalev1.Scope_SCOPE_WRITE, time.Time{})
	_, void, err := f.Check(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Revoke("ci"); err != nil {
		t.Fatal(err)
	}
	if err := context.Cause(void); !errors.Is(err, ErrToken) {
		t.Errorf("calls under way: %v", err)
	}
	for _, f := range []*TokenFile{f, newTokens(t, dir, clock)} {
		if _, _, err := f.Check(text); !errors.Is(err, ErrToken) {
			t.Errorf("revoked: %v", err)
		}
		if _, _, err := f.Check(other); err != nil {
			t.Errorf("another one: %v", err)
		}
	}
	if err := f.Revoke("ci"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	// The name is free again, and the old token stays void.
	again := mustCreate(t, f, "ci", scalev1.Scope_SCOPE_READ, time.Time{})
	if _, _, err := f.Check(text); !errors.Is(err, ErrToken) || again == text {
		t.Errorf("an older token of the name: %v", err)
	}
}

func TestTokenExpiresUnderWay(t *testing.T) {
	f := OpenTokens(t.TempDir())
	defer f.Close()
	// The file has whole seconds, so that it takes up to one until the token is void.
	text := mustCreate(t, f, "short", scalev1.Scope_SCOPE_READ, time.Now().Add(time.Second+time.Millisecond))
	_, void, err := f.Check(text)
	if err != nil {
		t.Fatal(err)
	}
	<-void.Done()
	if err := context.Cause(void); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("cause %v", err)
	}
	if _, _, err := f.Check(text); !errors.Is(err, ErrToken) {
		t.Errorf("after expiry: %v", err)
	}
}

func TestTokenArguments(t *testing.T) {
	dir, clock := t.TempDir(), &tokenClock{tokenTime}
	f := newTokens(t, dir, clock)
	mustCreate(t, f, "taken", scalev1.Scope_SCOPE_READ, time.Time{})
	for _, c := range []struct {
		name    string
		scope   scalev1.Scope
		expires time.Time
		want    error
	}{
		{"taken", scalev1.Scope_SCOPE_READ, time.Time{}, store.ErrExists},
		{"", scalev1.Scope_SCOPE_READ, time.Time{}, store.ErrInvalid},
		{strings.Repeat("n", 65), scalev1.Scope_SCOPE_READ, time.Time{}, store.ErrInvalid},
		{"with space", scalev1.Scope_SCOPE_READ, time.Time{}, store.ErrInvalid},
		{"../up", scalev1.Scope_SCOPE_READ, time.Time{}, store.ErrInvalid},
		{"é", scalev1.Scope_SCOPE_READ, time.Time{}, store.ErrInvalid},
		{"line\n", scalev1.Scope_SCOPE_READ, time.Time{}, store.ErrInvalid},
		{"scopeless", scalev1.Scope_SCOPE_UNSPECIFIED, time.Time{}, store.ErrInvalid},
		{"unknown", scalev1.Scope(4), time.Time{}, store.ErrInvalid},
		{"past", scalev1.Scope_SCOPE_READ, tokenTime, store.ErrInvalid},
		{"far", scalev1.Scope_SCOPE_READ, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), store.ErrInvalid},
	} {
		if _, text, err := f.Create(c.name, c.scope, c.expires); !errors.Is(err, c.want) || text != "" {
			t.Errorf("create %q: %q, %v", c.name, text, err)
		}
	}
	if list, _ := f.List(); len(list) != 1 {
		t.Errorf("list %v", list)
	}
}

func TestTokenText(t *testing.T) {
	text, id := newSecret()
	if len(text) != tokenTextLen || !strings.HasPrefix(text, "scale_") {
		t.Errorf("%q", text)
	}
	if got, err := parseToken(text); got != id || err != nil {
		t.Errorf("id %q, %v", got, err)
	}
	// Every typing error is told.
	for i := range text {
		for _, c := range "a2_Z= \n" {
			wrong := text[:i] + string(c) + text[i+1:]
			if _, err := parseToken(wrong); wrong != text && !errors.Is(err, ErrToken) {
				t.Errorf("%q at %d: %v", c, i, err)
			} else if err != nil && strings.Contains(err.Error(), strings.Split(text, "_")[2]) {
				t.Errorf("the error has the secret: %v", err)
			}
		}
		if _, err := parseToken(text[:i] + text[i+1:]); !errors.Is(err, ErrToken) {
			t.Errorf("without character %d: %v", i, err)
		}
	}
	for _, s := range []string{"", "scale_", text + "0", text + "\n", " " + text, strings.ToUpper(text)} {
		if _, err := parseToken(s); !errors.Is(err, ErrToken) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// A file that is not exactly what was written admits nobody.
func TestTokenFileDamaged(t *testing.T) {
	dir, clock := t.TempDir(), &tokenClock{tokenTime}
	f := newTokens(t, dir, clock)
	text := mustCreate(t, f, "a", scalev1.Scope_SCOPE_ADMIN, tokenTime.Add(24*time.Hour))
	mustCreate(t, f, "b", scalev1.Scope_SCOPE_READ, time.Time{})
	sound, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := map[string][]byte{
		"empty":      {},
		"null":       []byte("null\n"),
		"other JSON": []byte(`{"format":1,"tokens":[]}` + "\n"),
		"more":       append(sound[:len(sound):len(sound)], '\n'),
		"long":       append(sound[:len(sound):len(sound)], make([]byte, maxTokensFile)...),
		"scope":      []byte(strings.Replace(string(sound), `"read"`, `"admin"`, 1)),
		"expiry":     []byte(strings.Replace(string(sound), "2027-03-05", "2127-03-05", 1)),
		"newer":      []byte(strings.Replace(string(sound), `"format": 1`, `"format": 2`, 1)),
	}
	for i := range sound {
		b := append([]byte(nil), sound...)
		b[i] ^= 1 << (i % 8)
		damaged[fmt.Sprintf("bit of byte %d", i)] = b
		damaged[fmt.Sprintf("cut at %d", i)] = sound[:i]
	}
	for name, b := range damaged {
		if string(b) == string(sound) {
			t.Fatalf("%s changes nothing", name)
		}
		if err := os.WriteFile(f.path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		f := openTokens(f.path, clock.now)
		if err := f.Err(); !errors.Is(err, store.ErrCorrupt) && !errors.Is(err, store.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := f.Check(text); !errors.Is(err, ErrToken) {
			t.Errorf("%s: accepted: %v", name, err)
		}
		_, cerr := f.List()
		_, _, derr := f.Create("new", scalev1.Scope_SCOPE_READ, time.Time{})
		if f.Usable() != 0 || cerr == nil || derr == nil || f.Revoke("a") == nil {
			t.Errorf("%s: used: %v, %v", name, cerr, derr)
		}
		if after, err := os.ReadFile(f.path); err != nil || string(after) != string(b) {
			t.Errorf("%s: the file was written: %v", name, err)
		}
	}
}

func TestTokenFileNotPlain(t *testing.T) {
	dir, clock := t.TempDir(), &tokenClock{tokenTime}
	f := newTokens(t, dir, clock)
	text := mustCreate(t, f, "a", scalev1.Scope_SCOPE_ADMIN, time.Time{})
	if err := os.Chmod(f.path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := openTokens(f.path, clock.now).Err(); !errors.Is(err, store.ErrKeys) {
		t.Errorf("a file that others read: %v", err)
	}
	if err := os.Chmod(f.path, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), store.TokensFile)
	if err := os.Symlink(f.path, link); err != nil {
		t.Fatal(err)
	}
	linked := openTokens(link, clock.now)
	if _, _, err := linked.Check(text); linked.Err() == nil || !errors.Is(err, ErrToken) {
		t.Errorf("a link: %v, %v", linked.Err(), err)
	}
	if err := openTokens(t.TempDir(), clock.now).Err(); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a directory: %v", err)
	}
}

// When the disk refuses, a new token is not admitted, and a revoked one is void all the
// same and can be revoked again.
func TestTokenFileNotWritten(t *testing.T) {
	dir, clock := t.TempDir(), &tokenClock{tokenTime}
	f := newTokens(t, dir, clock)
	text := mustCreate(t, f, "a", scalev1.Scope_SCOPE_ADMIN, time.Time{})
	block := f.path + ".new" // a directory that is not empty cannot be replaced
	if err := os.MkdirAll(filepath.Join(block, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, secret, err := f.Create("b", scalev1.Scope_SCOPE_READ, time.Time{}); err == nil || secret != "" {
		t.Errorf("created %q", secret)
	}
	if err := f.Revoke("a"); err == nil {
		t.Error("revoked")
	}
	if _, _, err := f.Check(text); !errors.Is(err, ErrToken) {
		t.Errorf("accepted: %v", err)
	}
	if err := os.RemoveAll(block); err != nil {
		t.Fatal(err)
	}
	if err := f.Revoke("a"); err != nil {
		t.Error(err)
	}
	if _, _, err := newTokens(t, dir, clock).Check(text); !errors.Is(err, ErrToken) {
		t.Errorf("accepted: %v", err)
	}
}

func TestTokenFileFull(t *testing.T) {
	dir, clock := t.TempDir(), &tokenClock{tokenTime}
	f := newTokens(t, dir, clock)
	for i := range maxTokens {
		_, id := newSecret()
		r := &tokenRecord{Token: Token{fmt.Sprintf("%064d", i), scalev1.Scope_SCOPE_WRITE, tokenTime, tokenTime}, id: id}
		f.admit(r)
	}
	if _, _, err := f.Create("more", scalev1.Scope_SCOPE_READ, time.Time{}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("one more: %v", err)
	}
	if err := f.write(f.sorted()); err != nil {
		t.Fatal(err)
	}
	if list, err := newTokens(t, dir, clock).List(); len(list) != maxTokens || err != nil {
		t.Errorf("read again: %d, %v", len(list), err)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("")
	f.Add(formatToken("abcdefgh", make([]byte, tokenKeySize)))
	f.Add("scale_abcdefgh_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab_00000000")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := parseToken(text)
		if err != nil {
			return
		}
		key, err := tokenCoding.DecodeString(strings.Split(text, "_")[2])
		if err != nil || formatToken(id, key) != text {
			t.Errorf("%q is not canonical: %v", text, err)
		}
	})
}

func FuzzParseTokens(f *testing.F) {
	none, err := formatTokens(nil)
	if err != nil {
		f.Fatal(err)
	}
	two, err := formatTokens([]*tokenRecord{
		{Token: Token{"a", scalev1.Scope_SCOPE_ADMIN, tokenTime, tokenTime}, id: "aaaaaaaa", hash: hashToken("a")},
		{Token: Token{"b", scalev1.Scope_SCOPE_READ, tokenTime, time.Time{}}, id: "bbbbbbbb", hash: hashToken("b")},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(none)
	f.Add(two)
	f.Add([]byte(`{"format":1,"tokens":[{}],"sum":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := parseTokens(b)
		if err != nil {
			return
		}
		again, err := formatTokens(records)
		if err != nil || string(again) != string(b) {
			t.Errorf("not canonical: %v", err)
		}
	})
}
