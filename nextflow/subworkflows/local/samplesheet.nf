//
// Parameters and sample sheet, held against their schemas
//

// Stops with one line for each thing that is wrong with the parameters.
def checkParameters(given) {
    def schema = readSchema('nextflow_schema.json')
    def groups = schema['$defs'].values()
    def properties = groups.collectEntries { group -> group.properties }
    def required = groups.collectMany { group -> group.required ?: [] }
    stopAt(problems(given, properties, required, '--'))
}

// Gives back the scans of a sample sheet: [ meta, image, foreground_reference or [], area_reference or [] ].
def readSamples(sheet) {
    def schema = readSchema('assets/schema_input.json').items
    def rows = file(sheet, checkIfExists: true).splitCsv(header: true, strip: true)
    def wrong = rows.withIndex().collectMany { row, index ->
        def given = row.findAll { _column, value -> value }
        problems(given, schema.properties, schema.required, "${sheet}, row ${index + 1}: ") + missingFiles(sheet, given, schema.properties, index)
    }
    def ids = rows.countBy { row -> row.id }
    wrong += ids.findAll { _id, count -> count > 1 }.collect { id, count -> "${sheet}: the id ${id} is given ${count} times" }
    stopAt(rows ? wrong : ["${sheet}: has no rows"])
    return rows.collect { row ->
        def meta = [id: row.id, sample: row.id, modality: row.modality ?: schema.properties.modality.default]
        [meta, beside(sheet, row.image), optional(sheet, row.foreground_reference), optional(sheet, row.anonymization_area_reference)]
    }
}

def readSchema(name) {
    return new groovy.json.JsonSlurper().parseText(file("${projectDir}/${name}").text)
}

// What a flat JSON schema finds wrong with values, one line each.
def problems(given, properties, required, where) {
    def missing = required.findAll { key -> isUnset(given[key]) }.collect { key -> "${where}${key} is missing" }
    def unknown = given.keySet().findAll { key -> !properties.containsKey(key) }.collect { key -> "${where}${key} is not known" }
    def wrong = given.findAll { key, value -> properties.containsKey(key) && !isUnset(value) }.collectMany { key, value ->
        def found = problem(value, properties[key])
        found ? ["${where}${key} is '${value}': ${found}"] : []
    }
    return missing + unknown + wrong
}

def isUnset(value) {
    return value == null || value == ''
}

// Why a value does not fit its schema; null if it does.
def problem(value, schema) {
    def text = value.toString()
    if (schema.type == 'number' && !text.isNumber()) {
        return 'it must be a number'
    }
    if (schema.type == 'boolean' && !(text in ['true', 'false'])) {
        return 'it must be true or false'
    }
    if (schema.minimum != null && text.toBigDecimal() < schema.minimum || schema.maximum != null && text.toBigDecimal() > schema.maximum) {
        return "it must lie between ${schema.minimum} and ${schema.maximum}"
    }
    if (schema['enum'] && !(text in schema['enum'])) {
        return "it must be one of ${schema['enum'].join(', ')}"
    }
    if (schema.pattern && !(text =~ schema.pattern).find()) {
        return "it must look like ${schema.pattern}"
    }
    return null
}

def missingFiles(sheet, given, properties, index) {
    return given
        .findAll { column, value -> properties[column]?.exists && !beside(sheet, value).exists() }
        .collect { column, value -> "${sheet}, row ${index + 1}: ${column} is '${value}': there is no such file" }
}

def stopAt(found) {
    if (found) {
        error(found.join('\n'))
    }
}

def optional(sheet, path) {
    return path ? beside(sheet, path) : []
}

// A path as the sheet gives it: relative ones start at the sheet's folder.
def beside(sheet, path) {
    def absolute = path.startsWith('/') || path.contains('://')
    return file(absolute ? path : "${file(sheet).parent}/${path}")
}
