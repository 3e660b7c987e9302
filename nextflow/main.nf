#!/usr/bin/env nextflow
//
// From a sample sheet of CT and MR scans to masks, patches, measures and one MultiQC page
//

nextflow.preview.output = true

include { checkParameters ; readSamples } from './subworkflows/local/samplesheet'
include { asTable ; steps ; summarise   } from './subworkflows/local/summary'
include { SCANMASKS                     } from './subworkflows/voxmask/scanmasks/main'
include { DCM2NIIX                      } from './modules/voxmask/dcm2niix/main'
include { RESAMPLE as RESAMPLE_FOREGROUND_REFERENCE ; RESAMPLE as RESAMPLE_AREA_REFERENCE } from './modules/voxmask/resample/main'
include { MULTIQC                       } from './modules/local/multiqc/main'

workflow {
    main:
    checkParameters(params)
    def samples = readSamples(params.input)
    def on_own_grid = params.spacing == null

    ch_sample = channel.fromList(samples).branch { _meta, image, _foreground, _area ->
        dicom: image.isDirectory()
        nifti: true
    }

    // A folder may hold several series; each becomes a scan, named after its series.
    DCM2NIIX(ch_sample.dicom.map { meta, folder, _foreground, _area -> [meta, folder] })
    ch_converted = DCM2NIIX.out.image
        .map { meta, images -> [meta, images instanceof List ? images : [images]] }
        .join(ch_sample.dicom.map { meta, _folder, foreground, area -> [meta, foreground, area] })
        .flatMap { meta, images, foreground, area ->
            images.collect { image ->
                [images.size() == 1 ? meta : meta + [id: image.name - '.nii.gz'], image, foreground, area]
            }
        }
    ch_scan = ch_sample.nifti.mix(ch_converted)

    // References are put on the same new grid as their scans.
    if (!on_own_grid) {
        RESAMPLE_FOREGROUND_REFERENCE(ch_scan.filter { row -> row[2] }.map { meta, _image, foreground, _area -> [meta, foreground, []] })
        RESAMPLE_AREA_REFERENCE(ch_scan.filter { row -> row[3] }.map { meta, _image, _foreground, area -> [meta, area, []] })
        ch_scan = ch_scan
            .map { meta, image, _foreground, _area -> [meta, image] }
            .join(RESAMPLE_FOREGROUND_REFERENCE.out.image.mix(ch_scan.filter { row -> !row[2] }.map { row -> [row[0], []] }))
            .join(RESAMPLE_AREA_REFERENCE.out.image.mix(ch_scan.filter { row -> !row[3] }.map { row -> [row[0], []] }))
    }

    SCANMASKS(ch_scan, !on_own_grid, !params.skip_patches)

    // Every scan of the sheet gets a row, also one that no step finished.
    def expected = steps(!on_own_grid, !params.skip_patches)
    ch_reports = SCANMASKS.out.report
        .map { meta, step, report -> [meta.sample, meta.id, step, report] }
        .groupTuple(by: [0, 1])
        .map { sample, id, names, reports -> [sample, id, [names, reports].transpose().collectEntries { pair -> [pair[0], pair[1]] }] }
    // Where no step of any scan was finished, the join has no third element to give.
    ch_row = channel.fromList(samples)
        .map { row -> [row[0].id, row[0].id] }
        .join(ch_reports.groupTuple().map { sample, ids, reports -> [sample, [ids, reports].transpose()] }, remainder: true)
        .flatMap { row -> (row[2] ?: [[row[0], [:]]]).collect { scan -> summarise(scan[0], scan[1], expected) } }
    ch_table = ch_row
        .toList()
        .map { rows -> asTable(rows) }
        .collectFile(name: 'scans.tsv', storeDir: params.outdir, newLine: false)
    ch_row.filter { row -> row.failed_step }.subscribe { row -> log.warn("scan ${row.id} was not finished: ${row.failed_step} failed or could not start") }

    ch_versions = channel.topic('versions')
        .unique()
        .map { process, tool, version -> "${process.tokenize(':').last()}:\n  ${tool}: '${version}'" }
        .collectFile(name: 'software_mqc_versions.yml', storeDir: "${params.outdir}/pipeline_info", newLine: true, sort: true)

    ch_multiqc = channel.empty()
    if (!params.skip_multiqc) {
        MULTIQC(
            file("${projectDir}/assets/multiqc_config.yml", checkIfExists: true),
            ch_table.mix(ch_versions, SCANMASKS.out.picture.map { _meta, picture -> picture }).collect(),
        )
        ch_multiqc = MULTIQC.out.report.mix(MULTIQC.out.data)
    }

    publish:
    scans = SCANMASKS.out.result.mix(on_own_grid ? channel.empty() : SCANMASKS.out.image)
    multiqc = ch_multiqc
}

// One folder a scan.
output {
    scans {
        path { row -> "${row[0].id}" }
    }
    multiqc {
        path 'multiqc'
    }
}
