// SPDX-License-Identifier: Apache-2.0

import SwiftletJSON

/// A JSON Schema (draft 2020-12, as OpenAPI 3.1 has it), with the named schemas that it refers to.
///
/// A reference is made of the schema that it refers to, so that none can dangle.
struct Schema: Sendable {
    private(set) var json: JSONValue
    /// The named schemas that this one refers to, however deep.
    private(set) var components: [String: JSONValue]

    private init(_ fields: [JSONValue.Field], components: [String: JSONValue] = [:]) {
        json = .object(fields)
        self.components = components
    }

    private static func typed(_ type: String, _ about: String) -> Schema {
        Schema([.init(name: "type", value: .string(type))]).with("description", about.isEmpty ? nil : .string(about))
    }

    /// The schema with one keyword more; as it is when there is no value.
    func with(_ keyword: String, _ value: JSONValue?) -> Schema {
        guard let value else { return self }
        return Schema(json.fields + [.init(name: keyword, value: value)], components: components)
    }

    func example(_ value: JSONValue) -> Schema { with("examples", .array([value])) }

    func orElse(_ value: JSONValue) -> Schema { with("default", value) }
}

// MARK: Simple values

extension Schema {
    /// Any JSON.
    static let anything = Schema([])

    static func string(_ about: String = "", length: ClosedRange<Int>? = nil) -> Schema {
        typed("string", about).with("minLength", length.map { .integer($0.lowerBound) })
            .with("maxLength", length.map { .integer($0.upperBound) })
    }

    static func word(_ values: [String], _ about: String = "") -> Schema {
        typed("string", about).with("enum", .array(values.map { .string($0) }))
    }

    /// One of an enumeration's raw values.
    static func word<Value: RawRepresentable>(_ values: [Value], _ about: String = "") -> Schema
    where Value.RawValue == String {
        word(values.map(\.rawValue), about)
    }

    static func integer(_ about: String = "", _ range: ClosedRange<Int>? = nil) -> Schema {
        typed("integer", about).with("minimum", range.map { .integer($0.lowerBound) })
            .with("maximum", range.map { .integer($0.upperBound) })
    }

    /// A count, which has no upper end.
    static func count(_ about: String = "") -> Schema { typed("integer", about).with("minimum", .integer(0)) }

    static func number(_ about: String = "") -> Schema { typed("number", about).with("minimum", .integer(0)) }

    static func flag(_ about: String = "") -> Schema { typed("boolean", about) }

    static func uuid(_ about: String = "") -> Schema { typed("string", about).with("format", "uuid") }

    /// A moment as the contract writes it, which is no `date-time`: it has no zone.
    static func moment(_ about: String = "") -> Schema {
        typed("string", about.isEmpty ? "UTC" : "\(about); UTC")
            .with("pattern", #"^[0-9]{4,}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}$"#)
            .example("2026-01-31T12:00:00.000000")
    }

    /// Bytes that are no JSON.
    static let bytes = typed("string", "").with("format", "binary")
}

// MARK: Compositions

extension Schema {
    static func array(of item: Schema, _ about: String = "") -> Schema {
        var schema = typed("array", about).with("items", item.json)
        schema.components = item.components
        return schema
    }

    /// An object whose keys are its user's.
    static func map(of value: Schema, _ about: String = "") -> Schema {
        var schema = typed("object", about).with("additionalProperties", value.json)
        schema.components = value.components
        return schema
    }

    /// An object with required and optional fields. It may have others.
    static func object(
        _ required: KeyValuePairs<String, Schema> = [:],
        optional: KeyValuePairs<String, Schema> = [:],
        about: String = ""
    ) -> Schema {
        let properties = Array(required) + Array(optional)
        var schema = typed("object", about)
            .with("properties", .object(properties.map { .init(name: $0.key, value: $0.value.json) }))
            .with("required", required.isEmpty ? nil : .array(required.map { .string($0.key) }))
        for property in properties { schema.components.merge(property.value.components) { $1 } }
        return schema
    }

    /// An object that has all that some others have.
    static func all(_ schemas: [Schema]) -> Schema {
        combined("allOf", schemas)
    }

    /// One of some, or several.
    static func any(_ schemas: [Schema]) -> Schema {
        combined("anyOf", schemas)
    }

    private static func combined(_ keyword: String, _ schemas: [Schema]) -> Schema {
        var schema = Schema([.init(name: keyword, value: .array(schemas.map(\.json)))])
        for part in schemas { schema.components.merge(part.components) { $1 } }
        return schema
    }

    /// The same, or null.
    var nullable: Schema {
        // The description stands beside `anyOf`, where readers look for it.
        let isOutside: (JSONValue.Field) -> Bool = { ["description", "default", "examples"].contains($0.name) }
        let inner = Schema(json.fields.filter { !isOutside($0) }, components: components)
        return json.fields.filter(isOutside).reduce(Self.any([inner, Self.typed("null", "")])) {
            $0.with($1.name, $1.value)
        }
    }

    /// A reference to a schema that gets a name in the document.
    static func named(_ name: String, _ schema: Schema) -> Schema {
        var components = schema.components
        components[name] = schema.with("title", .string(name)).json
        return Schema(
            [.init(name: "$ref", value: .string("#/components/schemas/\(name)"))],
            components: components
        )
    }
}
