package grpcapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// routes are the methods of every path that the port answers, by its pattern.
type routes map[string][]string

// readRoutes takes them from the document of the API.
func readRoutes(document []byte, metrics bool) (routes, error) {
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, fmt.Errorf("document of the API: %w", err)
	}
	plain := []string{http.MethodGet, http.MethodHead}
	all := routes{"/healthz": plain, "/readyz": plain, "/openapi.json": plain}
	if metrics {
		all["/metrics"] = plain
	}
	for pattern, methods := range doc.Paths {
		for m := range methods {
			all[pattern] = append(all[pattern], strings.ToUpper(m))
		}
	}
	return all, nil
}

// methods returns those that are for a path, none if there is no such path.
func (r routes) methods(path string) (all []string) {
	for pattern, methods := range r {
		if matches(pattern, path) {
			all = append(all, methods...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// matches reports whether a path is of a pattern.
func matches(pattern, path string) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	return slices.EqualFunc(want, got, func(w, g string) bool {
		_, variable := variableOf(w)
		return w == g || variable && g != ""
	})
}

// variableOf returns the field that a component of a pattern stands for.
func variableOf(component string) (field string, ok bool) {
	field, ok = strings.CutPrefix(component, "{")
	if ok {
		field, ok = strings.CutSuffix(field, "}")
	}
	return field, ok
}

// A pathField is a field of a request that stands in the path.
type pathField struct{ name, value string }

// pathFields returns those of a path that matches a pattern.
func pathFields(pattern, path string) (fields []pathField) {
	values := strings.Split(path, "/")
	for i, component := range strings.Split(pattern, "/") {
		if name, ok := variableOf(component); ok && i < len(values) {
			fields = append(fields, pathField{name, values[i]})
		}
	}
	return fields
}
