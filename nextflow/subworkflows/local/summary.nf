//
// What the reports of the steps say, as MultiQC's table and as the list of scans that failed
//

// Which steps a scan has to pass, in order.
def steps(with_resample, with_patches) {
    def all = ['resample', 'segment-foreground', 'segment-anonymization-area', 'crop-patches', 'qa-metrics foreground', 'qa-metrics anonymization-area']
    return all.findAll { step -> (step != 'resample' || with_resample) && (step != 'crop-patches' || with_patches) }
}

// One scan's row: its id, the first step that it did not pass (or ''), and the numbers of its reports.
def summarise(id, reports, expected) {
    def failed = expected.find { step -> !reports.containsKey(step) } ?: ''
    return [id: id, failed_step: failed] + numbers(reports.collectEntries { step, path -> [step, parse(path)] })
}

// Stubs leave empty reports.
def parse(path) {
    return path.size() ? new groovy.json.JsonSlurper().parseText(path.text).result : [:]
}

def numbers(results) {
    return [
        modality: results['segment-foreground']?.modality,
        foreground_ml: results['segment-foreground']?.foreground?.volume_ml,
        anonymization_area_ml: results['segment-anonymization-area']?.anonymization_area?.volume_ml,
        patches: results['crop-patches']?.count,
        saved_share: results['crop-patches']?.saved_share,
        foreground_dice: results['qa-metrics foreground']?.comparison?.overall?.dice,
        anonymization_area_dice: results['qa-metrics anonymization-area']?.comparison?.overall?.dice,
    ]
}

def asTable(rows) {
    def columns = rows[0].keySet()
    def lines = rows.toSorted { row -> row.id }.collect { row -> columns.collect { column -> row[column] == null ? '' : row[column] }.join('\t') }
    return ([columns.join('\t')] + lines).join('\n') + '\n'
}
